"""VideoDPO: pairs of best and worst video, those with a rare gap of scores counting more."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["video_dpo_omniscore", "video_dpo_omniscore_script"]


@objective(
    "video_dpo_omniscore",
    kind="pairwise",
    source="Liu et al., VideoDPO: Omni-Preference Alignment for Video Diffusion Generation, arXiv:2412.14167",
    evidence="official",
    aliases=("videodpo",),
    published=("denoising",),
)
def video_dpo_omniscore(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    weight: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    alpha: NonNegative = 1.0,
) -> Tensor:
    r"""DPO whose losses are multiplied by how rare a pair's gap of scores is.

    .. math:: \ell = -w^\alpha \log\sigma(\beta\,(\Delta_w - \Delta_l)), \qquad w = 0.72 / p

    where p is the probability of the pair's gap in a histogram of all gaps.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        weight: (B,) w above (`diffpref.ranking.rarity_weights`); 1 where the batch has no such column. The mean of the
            losses is not divided by it. No gradient.
        beta: as in `dpo`.
        alpha: the code's default; its released configuration has 0, which switches the weights off.

    Returns:
        (B,) positive losses, unreduced; the weight times ln 2 where the margin is 0.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Liu et al., VideoDPO, CVPR 2025; CIntellifusion/VideoDPO ``ddpm3d.py``, except that its error keeps the
    width axis (`video_dpo_omniscore_script`).
    Reduces to: `dpo` at ``alpha: 0``.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(video_dpo_omniscore(**ratios, weight=torch.tensor([2.0]), beta=0.1).item(), 6)
    1.260516
    """
    losses = logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)
    return losses if weight is None else weight**alpha * losses


@objective(
    "video_dpo_omniscore_script",
    kind="pairwise",
    source="CIntellifusion/VideoDPO ddpm3d.py, dpo_loss; arXiv:2412.14167",
    evidence="official",
    published=("denoising",),
)
def video_dpo_omniscore_script(
    *,
    policy_chosen_prediction: Tensor,
    policy_rejected_prediction: Tensor,
    reference_chosen_prediction: Tensor,
    reference_rejected_prediction: Tensor,
    chosen_target: Tensor,
    rejected_target: Tensor,
    weight: Tensor | None = None,
    beta: Positive = 5000.0,
    alpha: NonNegative = 1.0,
) -> Tensor:
    r"""VideoDPO as its released script computes it: the logistic is applied to each latent column.

    .. math:: \ell = -w^\alpha \,\mathrm{mean}_x \log\sigma\Big(-\tfrac{\beta}{2}\big[(e_{w,x} - e_{l,x}) -
              (e^{\mathrm{ref}}_{w,x} - e^{\mathrm{ref}}_{l,x})\big]\Big)

    where :math:`e_x` is the squared error averaged over all but the batch and the last (width) axis. For replication;
    `video_dpo_omniscore` is the loss that the paper describes.

    Args:
        policy_chosen_prediction: (B, C, F, H, W) of the policy on the chosen video.
        policy_rejected_prediction: the same on the rejected video.
        reference_chosen_prediction: (B, C, F, H, W) of the reference on the chosen video. No gradient.
        reference_rejected_prediction: the same on the rejected video. No gradient.
        chosen_target: (B, C, F, H, W) what a perfect network would predict. No gradient.
        rejected_target: the same of the rejected video. No gradient.
        weight: (B,) w above; 1 where the batch has no such column. No gradient.
        beta: as in `dpo` for denoisers.
        alpha: exponent of the weight.

    Returns:
        (B,) positive losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: CIntellifusion/VideoDPO ``lvdm/models/ddpm3d.py``, where a mean over the axes 1 to 3 of a 5-D tensor leaves
    the last one.
    Reduces to: `video_dpo_omniscore` on videos one latent column wide.

    >>> import torch
    >>> zero, half = torch.zeros(1, 1, 1, 1, 2), torch.full((1, 1, 1, 1, 2), 0.5)
    >>> sides = {"chosen_target": zero, "rejected_target": zero, "policy_chosen_prediction": half}
    >>> more = {"policy_rejected_prediction": zero, "reference_chosen_prediction": zero}
    >>> loss = video_dpo_omniscore_script(**sides, **more, reference_rejected_prediction=zero, beta=1.0)
    >>> round(loss.item(), 6)
    0.757599
    """
    axes = tuple(range(1, chosen_target.dim() - 1))
    chosen = (policy_chosen_prediction - chosen_target) ** 2 - (reference_chosen_prediction - chosen_target) ** 2
    rejected = (policy_rejected_prediction - rejected_target) ** 2 - (
        reference_rejected_prediction - rejected_target
    ) ** 2
    losses = -logsigmoid(-0.5 * beta * (chosen - rejected).mean(dim=axes)).mean(dim=1)
    return losses if weight is None else weight**alpha * losses
