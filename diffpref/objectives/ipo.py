"""Identity Preference Optimization: a squared loss that draws the log-ratio difference to a finite target."""

from __future__ import annotations

from torch import Tensor

from diffpref.core.annotations import Positive, scale
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective

__all__ = ["ipo"]


@objective(
    "ipo",
    kind="pairwise",
    source="Azar et al., arXiv:2310.12036, eq. 17",
    evidence="official",
    signs={},
)
def ipo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    tau: Positive = scale(tokens=0.1, denoising=5000.0),
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Regress the difference of log-ratios onto a target, so that it cannot grow without bound.

    .. math:: \ell = \left(h - \frac{1}{2\tau}\right)^2, \qquad
              h = \frac{\Delta_w}{n_w} - \frac{\Delta_l}{n_l} \;\text{ or }\; \Delta_w - \Delta_l

    With soft labels it is the expectation over the label,
    :math:`p\,(h - \frac{1}{2\tau})^2 + (1 - p)\,(h + \frac{1}{2\tau})^2`, whose minimum lies at
    :math:`h = (2p - 1) / 2\tau`: a tie draws the two together.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed with ``length_normalize``. No gradient.
        rejected_length: (B,) the same for the rejected response.
        tau: larger asks for a smaller difference. It is not DPO's beta. On a denoiser's log-ratios it is twice the beta
            of the diffusers script, which leaves out the 0.5, and the loss is a quarter of the script's.
        length_normalize: divide each log-ratio by its length, as the authors confirmed for text. Denoisers' log-ratios
            are means already.

    Returns:
        (B,) non-negative losses, unreduced; 1 / (4 tau^2) where policy and reference agree. With a denoiser's tau that
        is about 1e-8, so compose it with a ``coefficient`` of tau^2 where the size matters (Adam's epsilon, clipping).

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: ``length_normalize`` without lengths.

    Source: Azar et al., A General Theoretical Paradigm to Understand Learning from Human Preferences, AISTATS 2024,
    eq. 17. The sum form follows eric-mitchell/direct-preference-optimization (``ipo=True``), the normalised form TRL.
    Reduces to: least squares on the difference of log-ratios.

    >>> import torch
    >>> chosen, rejected = torch.tensor([0.5]), torch.tensor([-0.8])
    >>> round(ipo(chosen_log_ratio=chosen, rejected_log_ratio=rejected, tau=0.1, length_normalize=False).item(), 4)
    13.69
    """
    if length_normalize:
        if chosen_length is None or rejected_length is None:
            raise ConfigError(
                "ipo: length_normalize needs the columns chosen_length and rejected_length; "
                "set length_normalize=false to compare sums"
            )
        difference = chosen_log_ratio / chosen_length - rejected_log_ratio / rejected_length
    else:
        difference = chosen_log_ratio - rejected_log_ratio
    target = 1 / (2 * tau)
    if preference is None:
        return (difference - target).square()
    return preference * (difference - target).square() + (1 - preference) * (difference + target).square()
