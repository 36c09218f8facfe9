"""Inversion-DPO: policy and reference compared along a whole inverted trajectory, without a denoising target."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diffpref.core.annotations import Positive
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["inversion_dpo"]


@objective(
    "inversion_dpo",
    kind="pairwise",
    source="Li et al., Inversion-DPO: Precise and Efficient Post-Training for Diffusion Models, arXiv:2507.11554",
    evidence="official",
    published=("denoising",),
    signs={"chosen_segment_kl": "-", "rejected_segment_kl": "+"},
)
def inversion_dpo(
    *,
    chosen_segment_kl: Tensor,
    rejected_segment_kl: Tensor,
    preference: Tensor | None = None,
    beta: Positive = 2000.0,
    sign: Literal["code", "reference_trajectory"] = "code",
) -> Tensor:
    r"""Let the policy leave the reference along the chosen sample's trajectory rather than the rejected one's.

    .. math:: \ell = -\log\sigma\!\left(\pm\frac{\beta}{2N}\sum_{i=1}^{N}(d_{w,i} - d_{l,i})\right), \qquad
              d_i = \frac{1}{2\bar\alpha_{t_i}} \mathrm{mean}\,(\epsilon_\theta - \epsilon_{\mathrm{ref}})^2

    Experimental: where policy and reference agree the disagreement has a minimum, so nothing is learned from an exact
    copy; start from a policy that differs.

    Args:
        chosen_segment_kl: (B, N) d above at the N points of the chosen sample's inverted trajectory.
        rejected_segment_kl: (B, N) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: strength, of the code, whose means over elements and points it absorbs.
        sign: plus, as in the code, right for trajectories of the policy; or minus, right for those of the reference,
            which are what the code makes.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Li et al., Inversion-DPO, ACM MM 2025; MIGHTYEZ/Inversion-DPO ``train_ddim.py``.
    Reduces to: `dpo` on half the mean disagreements in place of log-ratios.

    >>> import torch
    >>> chosen, rejected = torch.tensor([[0.01, 0.03]]), torch.tensor([[0.02, 0.0]])
    >>> round(inversion_dpo(chosen_segment_kl=chosen, rejected_segment_kl=rejected, beta=100.0).item(), 6)
    0.474077
    """
    margin = 0.5 * beta * (chosen_segment_kl - rejected_segment_kl).mean(dim=1)
    return logistic(margin if sign == "code" else -margin, preference)
