"""The losses that train preference reward models, as pure functions of embeddings or scores.

They are objectives of `diffpref.objectives` under the names and conventions of the official codes; recipes name those.

float64 in is computed and returned in float64, anything else in float32. Nothing is reduced: a record has one loss.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from diffpref import objectives
from diffpref.core.contracts import Terms
from diffpref.core.errors import ConfigError, ShapeError

__all__ = [
    "bradley_terry_loss",
    "gaussian_pair_loss",
    "hps_list_loss",
    "hps_pair_loss",
    "hps_ranking_loss",
    "pickscore_loss",
    "rao_kupper_loss",
]


def _real(*tensors: Tensor) -> list[Tensor]:
    keep = any(tensor.dtype == torch.float64 for tensor in tensors)
    return [tensor if keep and tensor.dtype == torch.float64 else tensor.float() for tensor in tensors]


def _unit(*features: Tensor) -> list[Tensor]:
    if len({tuple(tensor.shape) for tensor in features}) != 1 or features[0].dim() != 2:
        raise ShapeError(f"embeddings must have one shape (B, D), got {[tuple(f.shape) for f in features]}")
    return [functional.normalize(tensor, dim=-1) for tensor in _real(*features)]


def _pair_logits(text: Tensor, first: Tensor, second: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B,) each: tau * cosine of each text with its own two images, the scores of a reward model."""
    tau = logit_scale.exp()
    return tau * (text * first).sum(dim=-1), tau * (text * second).sum(dim=-1)


def pickscore_loss(
    *,
    text_features: Tensor,
    first_features: Tensor,
    second_features: Tensor,
    preference: Tensor,
    num_examples_per_prompt: Tensor,
    logit_scale: Tensor,
    in_batch_negatives: bool = False,
) -> Terms:
    r"""PickScore's criterion: how far the model's preference is from the label, prompts weighing alike.

    .. math:: \ell = \mathrm{KL}\big((p, 1 - p) \,\|\, \mathrm{softmax}(\tau\, t \cdot x_1, \tau\, t \cdot x_2)\big),
              \quad w = 1 / n

    Args:
        text_features: (B, D); normalised here, as the images'.
        first_features: (B, D).
        second_features: (B, D).
        preference: (B,) p, the probability that the first is better: 1, 0, or 0.5 for a tie.
        num_examples_per_prompt: (B,) n, how many pairs of the data share the prompt.
        logit_scale: () the model's parameter, log tau.
        in_batch_negatives: compare with all images and texts of the batch, as an option of the official code does; then
            a record's loss depends on its batch.

    Returns:
        (B,) losses >= 0 and (B,) weights; the official loss is sum(w * loss) / sum(w) over the global batch.

    Source: Kirstain et al., Pick-a-Pic, NeurIPS 2023, section 4; yuvalkirstain/PickScore ``clip_criterion.py``.
    Reduces to: `bradley_terry_loss` of the logits, for preference 1.
    """
    text, first, second = _unit(text_features, first_features, second_features)
    weights = 1 / num_examples_per_prompt.to(text.dtype)
    if not in_batch_negatives:
        one, other = _pair_logits(text, first, second, logit_scale)
        losses = objectives.pickscore(policy_chosen_score=one, policy_rejected_score=other, preference=preference)
        return Terms(losses, weights)
    label = torch.stack([preference, 1 - preference], dim=-1).to(text.dtype)
    entropy = -torch.xlogy(label, label).sum(dim=-1)
    tau, rows = logit_scale.exp(), torch.arange(len(text), device=text.device)
    by_text = (tau * text @ torch.cat([first, second]).T).log_softmax(dim=-1)
    of_text = torch.stack([by_text[rows, rows], by_text[rows, rows + len(text)]], dim=-1)
    of_image = torch.stack([(tau * x @ text.T).log_softmax(dim=-1)[rows, rows] for x in (first, second)], dim=-1)
    # the constant that makes a tie's minimum 0 belongs to the text part only, as in the official code
    return Terms((-(label * of_text).sum(dim=-1) - entropy - (label * of_image).sum(dim=-1)) / 2, weights)


def hps_pair_loss(
    *, text_features: Tensor, first_features: Tensor, second_features: Tensor, preference: Tensor, logit_scale: Tensor
) -> Tensor:
    """HPSv2's loss of a pair: cross-entropy of the two images' softmax with the label.

    Args:
        text_features: (B, D); normalised here, as the images'.
        first_features: (B, D).
        second_features: (B, D).
        preference: (B,) 1 where the first is better, 0 where the second is.
        logit_scale: () the model's parameter, log tau; training clamps it to [0, ln 100] after each step.

    Returns:
        (B,) losses. The official code **sums** them over the batch, to which its learning rate 3.3e-6 belongs.

    Source: Wu et al., HPS v2, arXiv 2306.09341; tgxs002/HPSv2 ``loss.py`` HPSLoss.
    """
    text, first, second = _unit(text_features, first_features, second_features)
    one, other = _pair_logits(text, first, second, logit_scale)
    return objectives.bradley_terry(policy_chosen_score=one, policy_rejected_score=other, preference=preference)


def hps_list_loss(*, list_score: Tensor, list_mask: Tensor, best: Tensor) -> Tensor:
    """HPSv2's loss of a group with one best image: cross-entropy over the group.

    Args:
        list_score: (B, K) logits, tau * cosine.
        list_mask: (B, K) true where there is an image.
        best: (B,) int64, position of the best.

    Returns:
        (B,) losses.

    Source: tgxs002/HPSv2 ``loss.py`` PreferenceLoss, which pads with -999 in place of a mask.
    """
    ranks = torch.ones_like(list_mask, dtype=torch.int64).scatter(1, best[:, None], 0)
    return objectives.reward_plackett_luce(policy_list_score=list_score, ranks=ranks, list_mask=list_mask, top=1)


def hps_ranking_loss(
    *, list_score: Tensor, list_mask: Tensor, list_rank: Tensor, margin: float = 1.0, legacy: bool = False
) -> Tensor:
    r"""HPSv2's ranking loss: a hinge on every pair of a group whose margin grows with the difference of ranks.

    .. math:: \ell = \mathrm{mean}_{r_i < r_j} \max(0,\; m - (r_j - r_i)(s_i - s_j))

    Args:
        list_score: (B, K) scores.
        list_mask: (B, K) true where there is an image.
        list_rank: (B, K) ranks, smaller is better; with ``legacy`` 1 is the best, else from any origin.
        margin: m above, in score units.
        legacy: as the official code computes it: padding (score -1, rank 10), ties and the diagonal enter the mean.

    Returns:
        (B,) losses; 0 for a group without two different ranks.

    Source: tgxs002/HPSv2 ``loss.py`` RankingLoss.
    """
    return objectives.hps_ranking(
        policy_list_score=list_score,
        ranks=list_rank - (1 if legacy else 0),  # ranks of the official code count from 1
        list_mask=list_mask,
        margin=margin,
        legacy=legacy,
    )


def bradley_terry_loss(
    *, chosen_score: Tensor, rejected_score: Tensor, target_margin: float | Tensor = 0.0, centring: float = 0.0
) -> Tensor:
    r"""Bradley-Terry pair loss of ImageReward and of TRL's reward trainer.

    .. math:: \ell = -\log \sigma(s_w - s_l - m) + c\,(s_w + s_l)^2

    Args:
        chosen_score: (B,) scores of the better.
        rejected_score: (B,) scores of the worse.
        target_margin: m above, or (B,) of them.
        centring: c above; keeps scores near 0.

    Returns:
        (B,) losses; ln 2 for equal scores.

    Source: TRL ``reward_trainer.py``; THUDM/ImageReward ``train.py``.
    """
    _alike(chosen_score, rejected_score)
    chosen, rejected = _real(chosen_score, rejected_score)
    losses = objectives.bradley_terry(policy_chosen_score=chosen - target_margin, policy_rejected_score=rejected)
    return losses + centring * (chosen + rejected).square()


def rao_kupper_loss(
    *, chosen_score: Tensor, rejected_score: Tensor, tie: Tensor | None = None, theta: float = 5.0
) -> Tensor:
    r"""Bradley-Terry with ties, as VideoAlign's reward model is trained.

    .. math:: P(a \succ b) = \sigma(d - \ln\theta), \qquad
              P(\mathrm{tie}) = (\theta^2 - 1)\,\sigma(d - \ln\theta)\,\sigma(-d - \ln\theta), \qquad d = s_a - s_b

    Args:
        chosen_score: (B,) scores of the better, or of either where the two are tied.
        rejected_score: (B,) scores of the other.
        tie: (B,) true where the two are equally good; nowhere where not given.
        theta: how far scores may differ in a tie; 1 is Bradley-Terry, which knows none.

    Returns:
        (B,) losses, minus the log of the label's probability.

    Raises:
        ShapeError: the scores differ in shape.
        ConfigError: theta below 1, or a tie with a theta of 1.

    Source: Rao and Kupper, 1967; Liu et al., arXiv 2501.13918; KwaiVGI/VideoAlign ``trainer.py`` "btt", whose mean is
    over all labels, invalid ones counting 0.
    Reduces to: `bradley_terry_loss` at theta 1.
    """
    _alike(chosen_score, rejected_score)
    if theta < 1 or (theta == 1 and tie is not None and bool(tie.any())):
        raise ConfigError(f"rao_kupper_loss: theta must be more than 1, or 1 where there are no ties; got {theta:g}")
    scores: dict[str, Any] = {"policy_chosen_score": chosen_score, "policy_rejected_score": rejected_score}
    if theta == 1:
        return objectives.bradley_terry(**scores)
    preference = None if tie is None else torch.where(tie, 0.5, 1.0)
    return objectives.bradley_terry_ties(**scores, preference=preference, threshold=math.log(theta))


def gaussian_pair_loss(
    *,
    chosen_mean: Tensor,
    chosen_log_std: Tensor,
    rejected_mean: Tensor,
    rejected_log_std: Tensor,
    draws: Tensor | None = None,
    num_nodes: int = 32,
) -> Tensor:
    r"""HPSv3's loss of two uncertain scores: Bradley-Terry, expected over both.

    .. math:: \ell = \mathbb{E}\,[-\log\sigma(z)], \qquad z \sim N(\mu_w - \mu_l,\; \sigma_w^2 + \sigma_l^2)

    Args:
        chosen_mean: (B,) mean score of the better.
        chosen_log_std: (B,) logarithm of its deviation, clamped to [-10, 10].
        rejected_mean: (B,) mean score of the worse.
        rejected_log_std: (B,) logarithm of its deviation.
        draws: (B, S) standard normal numbers to average over; the official code draws 1000. Not given: Gauss-Hermite
            quadrature, which has no noise.
        num_nodes: of the quadrature.

    Returns:
        (B,) losses.

    Raises:
        ShapeError: means and deviations differ in shape.

    Source: Ma et al., HPSv3, arXiv 2508.03789; MizzenAI/HPSv3 ``qwen2vl_trainer.py``, uncertainty branch.
    Reduces to: `bradley_terry_loss` of the means as both deviations vanish.
    """
    _alike(chosen_mean, rejected_mean)
    _alike(chosen_log_std, rejected_log_std)
    mean, other, log_std, other_log_std = _real(chosen_mean, rejected_mean, chosen_log_std, rejected_log_std)
    if draws is None:
        return objectives.uncertain_bradley_terry(
            policy_chosen_score=mean,
            policy_rejected_score=other,
            policy_chosen_log_std=log_std,
            policy_rejected_log_std=other_log_std,
            num_nodes=num_nodes,
        )
    variance = (2 * log_std.clamp(-10, 10)).exp() + (2 * other_log_std.clamp(-10, 10)).exp()
    return -functional.logsigmoid((mean - other)[:, None] + variance.sqrt()[:, None] * draws.to(mean.dtype)).mean(dim=1)


def _alike(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ShapeError(f"scores of the two samples differ in shape: {tuple(first.shape)}, {tuple(second.shape)}")
