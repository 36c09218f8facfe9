"""DenseDPO: two videos compared a segment at a time, ties left out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import Positive, Probability, scale
from diffpref.core.contracts import Terms
from diffpref.objectives.base import objective

__all__ = ["dense_dpo"]


@objective(
    "dense_dpo",
    kind="pairwise",
    source="Wu et al., DenseDPO: Fine-Grained Temporal Preference Optimization for Video Diffusion Models,"
    " arXiv:2506.03517, eq. 7 and appendix E",
    evidence="paper",
    published=("denoising",),
    signs={"chosen_segment_log_ratio": "-", "rejected_segment_log_ratio": "+"},
)
def dense_dpo(
    *,
    chosen_segment_log_ratio: Tensor,
    rejected_segment_log_ratio: Tensor,
    segment_label: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=500.0),
    reduction: Literal["frame_mean", "per_video_mean", "sum_inside", "mean_inside"] = "frame_mean",
    min_non_tie: Probability = 0.2,
) -> Terms:
    r"""Classify in each segment which of two videos was preferred; a segment may prefer the "rejected" one.

    .. math:: \ell = \frac{1}{|\{f: l_f \ne 0\}|} \sum_{f: l_f \ne 0} -\log\sigma(\beta\, l_f\,
              (\Delta_{0f} - \Delta_{1f})) \quad\text{or}\quad -\log\sigma\Big(\beta \sum_f l_f\,
              (\Delta_{0f} - \Delta_{1f})\Big)

    Args:
        chosen_segment_log_ratio: (B, F) policy minus reference log-likelihood of each latent frame of the first video.
        rejected_segment_log_ratio: (B, F) the same for the second video.
        segment_label: (B, F) 1 where the first is better, -1 where the second is, 0 for a tie. No gradient.
        beta: as in `dpo`. Published with eq. 7, which prints no factor 0.5; the appendix's code has it.
        reduction: ``frame_mean`` (appendix E) averages over all frames without a tie of the whole batch;
            ``per_video_mean`` over each video's first; ``sum_inside`` is eq. 7, ``mean_inside`` divides its sum by the
            number of frames without a tie.
        min_non_tie: a pair counts only if more than this share of its frames are no ties.

    Returns:
        (B,) losses, with weights: the number of frames that count (``frame_mean``), else 1; 0 for a pair without any,
        whose loss is 0. ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Wu et al., DenseDPO, NeurIPS 2025, eq. 7, appendices A.3 and E; no code is published.
    Reduces to: `flow_dpo` with labels 1 and ``mean_inside``; all reductions do with one frame.

    >>> import torch
    >>> first, second = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)
    >>> ratios = {"chosen_segment_log_ratio": first, "rejected_segment_log_ratio": second}
    >>> round(dense_dpo(**ratios, segment_label=torch.tensor([[1.0, 0.0]]), beta=1.0).losses.item(), 6)
    0.313262
    """
    margins = beta * segment_label * (chosen_segment_log_ratio - rejected_segment_log_ratio)
    told = segment_label != 0
    counts = told.sum(dim=1).to(margins.dtype)
    used = counts > min_non_tie * told.shape[1]
    if reduction in ("frame_mean", "per_video_mean"):
        losses = -torch.where(told, logsigmoid(margins), 0.0).sum(dim=1) / counts.clamp(min=1)
    else:
        total = margins.sum(dim=1)
        losses = -logsigmoid(total if reduction == "sum_inside" else total / counts.clamp(min=1))
    weights = counts if reduction == "frame_mean" else torch.ones_like(counts)
    return Terms(torch.where(used, losses, 0.0), weights=torch.where(used, weights, 0.0))
