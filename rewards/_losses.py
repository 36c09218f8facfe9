"""The losses that train preference reward models, as pure functions of embeddings or scores.

float64 in is computed and returned in float64, anything else in float32. Nothing is reduced: a record has one loss.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

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


def _pair_logits(text: Tensor, first: Tensor, second: Tensor, logit_scale: Tensor) -> Tensor:
    """Return (B, 2): tau * cosine of each text with its own two images."""
    return logit_scale.exp() * torch.stack([(text * first).sum(dim=-1), (text * second).sum(dim=-1)], dim=-1)


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
    label = torch.stack([preference, 1 - preference], dim=-1).to(text.dtype)
    entropy = -torch.xlogy(label, label).sum(dim=-1)
    if in_batch_negatives:
        tau, rows = logit_scale.exp(), torch.arange(len(text), device=text.device)
        by_text = (tau * text @ torch.cat([first, second]).T).log_softmax(dim=-1)
        of_text = torch.stack([by_text[rows, rows], by_text[rows, rows + len(text)]], dim=-1)
        of_image = torch.stack([(tau * x @ text.T).log_softmax(dim=-1)[rows, rows] for x in (first, second)], dim=-1)
        # the constant that makes a tie's minimum 0 belongs to the text part only, as in the official code
        losses = (-(label * of_text).sum(dim=-1) - entropy - (label * of_image).sum(dim=-1)) / 2
    else:
        log_probs = _pair_logits(text, first, second, logit_scale).log_softmax(dim=-1)
        losses = -(label * log_probs).sum(dim=-1) - entropy
    return Terms(losses, weights=1 / num_examples_per_prompt.to(losses.dtype))


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
    log_probs = _pair_logits(text, first, second, logit_scale).log_softmax(dim=-1)
    label = torch.stack([preference, 1 - preference], dim=-1).to(text.dtype)
    return -(label * log_probs).sum(dim=-1)


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
    (score,) = _real(list_score)
    return functional.cross_entropy(score.masked_fill(~list_mask, -torch.inf), best, reduction="none")


def hps_ranking_loss(
    *, list_score: Tensor, list_mask: Tensor, list_rank: Tensor, margin: float = 1.0, legacy: bool = False
) -> Tensor:
    r"""HPSv2's ranking loss: a hinge on every pair of a group whose margin grows with the difference of ranks.

    .. math:: \ell = \mathrm{mean}_{r_i < r_j} \max(0,\; m - (r_j - r_i)(s_i - s_j))

    Args:
        list_score: (B, K) scores.
        list_mask: (B, K) true where there is an image.
        list_rank: (B, K) ranks, smaller is better; any origin.
        margin: m above, in score units.
        legacy: as the official code computes it: padding (score -1, rank 10), ties and the diagonal enter the mean.

    Returns:
        (B,) losses; 0 for a group without two different ranks.

    Source: tgxs002/HPSv2 ``loss.py`` RankingLoss.
    """
    (score,) = _real(list_score)
    rank = list_rank.to(score.dtype)
    if legacy:
        score, rank = score.masked_fill(~list_mask, -1.0), rank.masked_fill(~list_mask, 10.0)
    # entry [i, j]: j against i, positive where the better of the two has the higher score
    agreement = (rank[:, :, None] - rank[:, None, :]) * (score[:, None, :] - score[:, :, None])
    hinge = (margin - agreement).clamp(min=0)
    below = torch.ones(hinge.shape[1:], dtype=torch.bool, device=score.device).tril()
    counted = below.expand_as(hinge)
    if not legacy:
        both = list_mask[:, :, None] & list_mask[:, None, :]
        counted = counted & both & (rank[:, :, None] != rank[:, None, :])
    return torch.where(counted, hinge, 0.0).sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1)


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
    return -functional.logsigmoid(chosen - rejected - target_margin) + centring * (chosen + rejected) ** 2


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
    chosen, rejected = _real(chosen_score, rejected_score)
    gap, shift = chosen - rejected, math.log(theta)
    won = -functional.logsigmoid(gap - shift)
    if tie is None or theta == 1:
        return won
    tied = won - functional.logsigmoid(-gap - shift) - math.log(theta**2 - 1)
    return torch.where(tie, tied, won)


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
    variance = (2 * log_std.clamp(-10, 10)).exp() + (2 * other_log_std.clamp(-10, 10)).exp()
    if draws is None:
        places, shares = np.polynomial.hermite_e.hermegauss(num_nodes)
        nodes, weights = mean.new_tensor(places)[None], mean.new_tensor(shares / shares.sum())
    else:
        nodes, weights = draws.to(mean.dtype), mean.new_full(draws.shape[1:], 1 / draws.shape[1])
    gaps = (mean - other)[:, None] + variance.sqrt()[:, None] * nodes
    return -(functional.logsigmoid(gaps) * weights).sum(dim=1)


def _alike(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ShapeError(f"scores of the two samples differ in shape: {tuple(first.shape)}, {tuple(second.shape)}")
