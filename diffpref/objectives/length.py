"""Logistic losses that answer for the length of a response: divided by it (LN-DPO), or paid for (R-DPO)."""

from __future__ import annotations

from torch import Tensor

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic, per_token

__all__ = ["ln_dpo", "r_dpo"]


@objective(
    "ln_dpo",
    kind="pairwise",
    source="Ahrabian et al., The Hitchhiker's Guide to Human Alignment with *PO, arXiv:2407.15229;"
    " Lambert et al., Tulu 3, arXiv:2411.15124",
    evidence="secondary",
    aliases=("sigmoid_norm", "dpo_norm", "length_normalized_dpo"),
)
def ln_dpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    beta: Positive = scale(tokens=5.0, denoising=5000.0),
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Classify the pair by log-ratios a token, so that long responses do not weigh more.

    .. math:: \ell = -p \log\sigma(m) - (1 - p) \log\sigma(-m), \qquad
              m = \beta \left(\frac{\Delta_w}{n_w} - \frac{\Delta_l}{n_l}\right)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample, summed over tokens.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) p above, P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed with ``length_normalize``. No gradient.
        rejected_length: (B,) the same for the rejected response.
        beta: 1 to 10, since log-ratios a token are small; 5 is open-instruct's.
        length_normalize: divide by the lengths. Denoisers' log-ratios are means already, and this is `dpo` there.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: ``length_normalize`` without lengths.

    Source: Ahrabian et al., The Hitchhiker's Guide to Human Alignment with \*PO, 2024 (LN-DPO); code: TRL
    ``loss_type="sigmoid_norm"`` and open-instruct ``dpo_norm``.
    Reduces to: `dpo` with beta / n where both responses have n tokens.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> lengths = {"chosen_length": torch.tensor([10.0]), "rejected_length": torch.tensor([12.0])}
    >>> round(ln_dpo(**ratios, **lengths, beta=1.0).item(), 6)
    0.636514
    """
    chosen, rejected = per_token(
        "ln_dpo", length_normalize, chosen_log_ratio, rejected_log_ratio, chosen_length, rejected_length
    )
    return logistic(beta * (chosen - rejected), preference)


@objective(
    "r_dpo",
    kind="pairwise",
    source="Park et al., Disentangling Length from Quality in Direct Preference Optimization, arXiv:2403.19159",
    evidence="secondary",
    aliases=("length_regularized_dpo",),
)
def r_dpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_length: Tensor,
    rejected_length: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    length_weight: NonNegative = 0.01,
) -> Tensor:
    r"""Let the difference of lengths explain a part of the preference, so that the policy need not learn it.

    .. math:: \ell = -p \log\sigma(m) - (1 - p) \log\sigma(-m), \qquad
              m = \beta\,(\Delta_w - \Delta_l) + \alpha\,(n_w - n_l)

    A longer chosen response is expected anyway, and teaches less.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        chosen_length: (B,) tokens of the chosen response (of anything that has a length). No gradient.
        rejected_length: (B,) the same for the rejected response.
        preference: (B,) p above, P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        length_weight: alpha above, logits a token; 0.005 to 0.1.

    Returns:
        (B,) positive losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Park et al., Disentangling Length from Quality in Direct Preference Optimization, ACL Findings 2024. Code:
    LuJunru/SamPO ``loss_type="lenN"``.
    Reduces to: `dpo` at length_weight=0, and for equal lengths.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> lengths = {"chosen_length": torch.tensor([10.0]), "rejected_length": torch.tensor([12.0])}
    >>> round(r_dpo(**ratios, **lengths).item(), 6)
    0.639659
    """
    margin = beta * (chosen_log_ratio - rejected_log_ratio) + length_weight * (chosen_length - rejected_length)
    return logistic(margin, preference)
