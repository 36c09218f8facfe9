"""SmPO-Diffusion: the logit of each pair weighs as much as a reward model is sure of it."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import Positive, scale
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective

__all__ = ["smpo_diffusion"]


@objective(
    "smpo_diffusion",
    kind="pairwise",
    source="Lu et al., Smoothed Preference Optimization via ReNoise Inversion for Aligning Diffusion Models with Varied"
    " Human Preferences, arXiv:2506.02698",
    evidence="official",
    aliases=("smpo", "smpo-diffusion"),
    published=("denoising",),
    signs={},
)
def smpo_diffusion(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_score: Tensor | None = None,
    rejected_score: Tensor | None = None,
    preference: Tensor | None = None,
    beta_scale: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=2000.0),
    weight_from: Literal["scores", "preference", "beta_scale"] = "scores",
    gamma: Positive = 10.0,
    score_range: Positive = 0.1665804460644722,
) -> Tensor:
    r"""Compare two samples in proportion to how much better one of them is: near-ties contribute almost nothing.

    .. math:: \ell = -\log\sigma\big(\beta\, w\,(\Delta_w - \Delta_l)\big), \qquad w = \gamma\,(2p - 1), \qquad
              p = \sigma\!\left(\frac{s_w - s_l}{r}\right)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        chosen_score: (B,) reward of the chosen sample, s above; with ``weight_from: scores``. Where the other sample
            has the larger one the pair counts the other way round, as if it were labelled by the scores. No gradient.
        rejected_score: (B,) the same for the rejected sample. No gradient.
        preference: (B,) P(chosen is better), p above; with ``weight_from: preference``. No gradient.
        beta_scale: (B,) w above itself; with ``weight_from: beta_scale``. No gradient.
        beta: as in `dpo`. Published: 2000 for SD 1.5 (the default for denoisers), 5000 for SDXL.
        weight_from: which columns say how sure a pair is: the published scores, a soft label, or the weight.
        gamma: the weight of a pair of which one is certain; a weight of 1 is plain DPO.
        score_range: r above, in the scores' unit: the largest minus the smallest in the data. The default is that of
            PickScore's cosine (not times its logit scale) over Pick-a-Pic v2: 0.11543526500463486 to
            0.28201571106910706.

    Returns:
        (B,) positive losses, unreduced; ln 2, without gradient, where the two are equally good.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: the columns that ``weight_from`` names are not there.

    Source: Lu et al., SmPO-Diffusion, ICML 2025; JaydenLyh/SmPO ``train.py``, which gives every pair of a batch the
    weight of the first one (right for its batches of one).
    Reduces to: `dpo` with ``weight_from: beta_scale`` at a weight of 1.

    >>> import torch
    >>> pair = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> scores = {"chosen_score": torch.tensor([0.22]), "rejected_score": torch.tensor([0.21])}
    >>> round(smpo_diffusion(**pair, **scores, beta=0.1).item(), 4)
    0.6738
    """
    if weight_from == "scores":
        if chosen_score is None or rejected_score is None:
            raise ConfigError(_needs("scores", "chosen_score and rejected_score"))
        # gamma * (2 sigmoid(x) - 1)
        weight = gamma * ((chosen_score - rejected_score) / (2 * score_range)).tanh()
    elif weight_from == "preference":
        if preference is None:
            raise ConfigError(_needs("preference", "preference"))
        weight = gamma * (2 * preference - 1)
    else:
        if beta_scale is None:
            raise ConfigError(_needs("beta_scale", "beta_scale"))
        weight = beta_scale
    return -logsigmoid(beta * weight * (chosen_log_ratio - rejected_log_ratio))


def _needs(choice: str, columns: str) -> str:
    return f"smpo_diffusion: weight_from '{choice}' needs {columns}; score the data, or choose other columns"
