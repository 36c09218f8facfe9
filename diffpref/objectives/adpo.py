"""Anchored DPO: soft labels from rewards, for pairs and for lists, against any anchor."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from diffpref.core.annotations import Positive, scale
from diffpref.core.contracts import Terms
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["adpo", "adpo_listwise"]


@objective(
    "adpo",
    kind="pairwise",
    source="Anchored Direct Preference Optimization, arXiv:2510.18913",
    evidence="paper",
    aliases=("anchored_dpo", "adpo_pairwise"),
    same_as="dpo",
)
def adpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    chosen_score: Tensor | None = None,
    rejected_score: Tensor | None = None,
    temperature: Positive = scale(tokens=1.0, denoising=2e-5),
    score_temperature: Positive = 1.0,
    labels: Literal["preference", "scores"] = "preference",
    entropy: bool = False,
) -> Tensor:
    r"""Meet a soft label, given or made from rewards, with the logit of the pair against an anchor.

    .. math:: \ell = -q \log\sigma(z) - (1 - q) \log\sigma(-z), \qquad
              z = \frac{\Delta_w - \Delta_l}{\tau}, \quad q = \sigma\Big(\frac{R_w - R_l}{\beta_r}\Big)

    Args:
        chosen_log_ratio: (B,) policy minus anchor log-likelihood of the chosen sample. The anchor is the reference
            role: frozen, the previous policy, or an average.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) q above; 1 where the batch has no such column. No gradient.
        chosen_score: (B,) reward of the chosen sample; needed with ``labels="scores"``. No gradient.
        rejected_score: (B,) the same for the rejected sample.
        temperature: tau above, the reciprocal of `dpo`'s beta; it is to grow with the length of samples.
        score_temperature: beta_r above, in the unit of rewards.
        labels: where q comes from.
        entropy: subtract the entropy of q, so that the loss is the divergence from q, with the same gradient.

    Returns:
        (B,) non-negative losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: labels from scores without scores.

    Source: Anchored DPO, 2025; the pair is the list of two of the abstract's objective.
    Reduces to: `dpo` with beta = 1 / temperature.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.5])}
    >>> round(adpo(**ratios, preference=torch.tensor([0.9])).item(), 6)
    0.413262
    """
    label = preference
    if labels == "scores":
        if chosen_score is None or rejected_score is None:
            raise ConfigError("adpo: labels=scores needs the columns chosen_score and rejected_score")
        label = torch.sigmoid((chosen_score - rejected_score) / score_temperature)
    losses = logistic((chosen_log_ratio - rejected_log_ratio) / temperature, label)
    if not entropy or label is None:
        return losses
    return losses + torch.xlogy(label, label) + torch.xlogy(1 - label, 1 - label)


@objective(
    "adpo_listwise",
    kind="listwise",
    source="Anchored Direct Preference Optimization, arXiv:2510.18913",
    evidence="paper",
    signs={},
    aliases=("adpo_list",),
)
def adpo_listwise(
    *,
    list_log_ratio: Tensor,
    list_scores: Tensor,
    list_mask: Tensor | None = None,
    temperature: Positive = scale(tokens=0.8, denoising=1.6e-5),
    score_temperature: Positive = 0.5,
    target: Literal["scores", "standardized", "smoothed_ranks"] = "standardized",
    bandwidth: Positive = 0.5,
    entropy: bool = False,
    drop_nonpositive: bool = False,
) -> Tensor | Terms:
    r"""Meet a distribution over a list, made from rewards, with the policy's against an anchor.

    .. math:: \ell = -\sum_k q_k \log p_k, \qquad q = \mathrm{softmax}(\hat R / \beta_r), \quad
              p = \mathrm{softmax}(\Delta / \tau)

    Args:
        list_log_ratio: (B, K) policy minus anchor log-likelihoods. The anchor is the reference role; with the policy
            that drew the list, p starts uniform.
        list_scores: (B, K) rewards R. No gradient.
        list_mask: (B, K) 1 where there is a candidate; all where the batch has no such column.
        temperature: tau above; it is to grow with the length of samples.
        score_temperature: beta_r above.
        target: R-hat: rewards as they are; less the list's mean and by its standard deviation (unbiased, plus 1e-8); or
            each reward's place in the list's distribution, smoothed by a Gaussian kernel, for rewards with outliers.
        bandwidth: of that kernel, in standard deviations of the list.
        entropy: subtract the entropy of q, so that the loss is the divergence from q, with the same gradient.
        drop_nonpositive: give no weight to lists without any reward above 0.

    Returns:
        (B,) losses, unreduced; log K where policy and anchor agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Anchored DPO, 2025; code of its author's trainer. The smoothed ranks are named in an abstract, their formula
    is ours.
    Reduces to: `dpo` with beta = 1 / temperature for two candidates and a hard target; supervised fine-tuning of the
    best.

    >>> import torch
    >>> ratios, scores = torch.tensor([[0.5, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 0.5]])
    >>> round(adpo_listwise(list_log_ratio=ratios, list_scores=scores, target="scores").item(), 6)
    0.935834
    """
    there = torch.ones_like(list_scores) if list_mask is None else (list_mask > 0).to(list_log_ratio.dtype)
    ratios = torch.where(there > 0, list_log_ratio, 0.0)
    scores = torch.where(there > 0, list_scores, 0.0)
    count = there.sum(dim=1, keepdim=True)
    wanted = scores
    if target != "scores":
        offset = there * (scores - scores.sum(dim=1, keepdim=True) / count)
        std = (offset.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
        wanted = offset / (std + 1e-8)
        if target == "smoothed_ranks":
            apart = (wanted.unsqueeze(2) - wanted.unsqueeze(1)) / bandwidth
            wanted = (torch.special.ndtr(apart) * there.unsqueeze(1)).sum(dim=2) / count
    absent = (1 - there) * -1e9
    log_target = log_softmax(wanted / score_temperature + absent, dim=1)
    goal = log_target.exp()
    losses = -(goal * log_softmax(ratios / temperature + absent, dim=1)).sum(dim=1)
    if entropy:
        losses = losses + (goal * log_target).sum(dim=1)
    if not drop_nonpositive:
        return losses
    return Terms(losses, weights=(scores > 0).any(dim=1).to(losses.dtype))
