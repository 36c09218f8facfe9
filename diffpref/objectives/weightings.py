"""Weightings: how much each record counts, by the model's confidence, by scores, by meaning, by difficulty.

Each may be put on any objective, ``{ipo: {weighting: {madpo: {tau: 2.0}}}}``; `wpo`, `madpo` and `sem_dpo` are these
functions on `dpo`. Weights are constants: no gradient flows through them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import NonNegative, Number, Positive, PositiveInt, Probability, scale
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.objectives.pair_links import per_token
from diffpref.objectives.weighting import weighting

__all__ = [
    "column_weights",
    "curriculum_weights",
    "gap_weights",
    "madpo_weights",
    "margin_weights",
    "sem_dpo_weights",
    "wpo_weights",
]

MADPO_TAU = 6.906754778648554
"""ln(0.999 / 0.001): the margin at which the reward model is 99.9 % sure."""


@weighting(
    "wpo",
    source="Zhou et al., WPO: Enhancing RLHF with Weighted Preference Optimization, arXiv:2406.11827",
    evidence="official",
)
def wpo_weights(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    policy_chosen_collision: Tensor,
    policy_rejected_collision: Tensor,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    clamp: bool = True,
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Count a pair as much as the policy itself would say it: off-policy responses less.

    .. math:: w = \min\big(1,\, e^{c_w + c_l}\big), \qquad
              c = \frac{1}{n} \sum_t \Big(\log\pi(y_t) - \log \sum_v \pi(v)^2\Big)

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample.
        policy_rejected_logps: (B,) of the rejected one.
        policy_chosen_collision: (B,) sum over tokens of log sum_v p(v)^2: what the policy expects of its own samples.
        policy_rejected_collision: (B,) the same along the rejected sample.
        chosen_length: (B,) tokens; needed with ``length_normalize``.
        rejected_length: (B,) tokens.
        clamp: the authors' bound of 1; TRL has none.
        length_normalize: divide by the lengths. Denoisers' log-likelihoods are means already.

    Raises:
        ConfigError: ``length_normalize`` without lengths.
    """
    chosen, rejected = per_token(
        "wpo",
        length_normalize,
        policy_chosen_logps - policy_chosen_collision,
        policy_rejected_logps - policy_rejected_collision,
        chosen_length,
        rejected_length,
    )
    confidence = (chosen + rejected).detach()
    return torch.exp(confidence.clamp(max=0.0) if clamp else confidence)


@weighting(
    "madpo",
    source="Margin Adaptive DPO, arXiv:2510.05342",
    evidence="official",
)
def madpo_weights(
    *,
    chosen_score: Tensor,
    rejected_score: Tensor,
    c_min: Positive = 0.5,
    c_max: Positive = 2.0,
    steepness: Positive = 1.0,
    tau: Number = MADPO_TAU,
) -> Tensor:
    r"""Amplify pairs that a reward model finds hard, dampen those that it finds easy.

    .. math:: w = \frac{\sigma(c(|h|)\, h)}{\sigma(h)} \;\text{ for } h > -\tau, \text{ else } 1, \qquad
              c(m) = c_- + \frac{c_+ - c_-}{1 + \frac{c_+ - 1}{1 - c_-}\, e^{\lambda (m - \tau)}}

    Args:
        chosen_score: (B,) frozen reward of the chosen sample; h is the difference of the two, as a logit.
        rejected_score: (B,) of the rejected one.
        c_min: amplification of the easiest pairs, at most 1.
        c_max: amplification of the hardest pairs, at least 1.
        steepness: lambda above.
        tau: the margin at which the weight is 1. The authors' value counts nearly all pairs as hard; take a quantile
            of the margins.

    Raises:
        ConfigError: c_min > 1, c_max < 1, or only one of them is 1.
    """
    if c_min == c_max == 1:
        return torch.ones_like(chosen_score)
    if not c_min < 1 < c_max:
        raise ConfigError(f"madpo: c_min < 1 < c_max is needed (or both 1), got c_min={c_min:g}, c_max={c_max:g}")
    margin = chosen_score - rejected_score
    ratio = (c_max - 1) / (1 - c_min)
    sharpness = c_min + (c_max - c_min) / (1 + ratio * torch.exp((steepness * (margin.abs() - tau)).clamp(max=80.0)))
    # The unused branch would divide by a sigmoid that underflows.
    safe = torch.where(margin > -tau, margin, 0.0)
    return torch.exp(logsigmoid(sharpness * safe) - logsigmoid(safe))


@weighting(
    "sem_dpo",
    source="Sem-DPO, arXiv:2507.20133",
    evidence="secondary",
)
def sem_dpo_weights(*, chosen_similarity: Tensor, alpha: NonNegative = 1.0) -> Tensor:
    r"""Count a pair less the further its winner drifted in meaning from the prompt.

    .. math:: w = e^{-\alpha (1 - \cos(e(x), e(y_w)))}

    Args:
        chosen_similarity: (B,) cosine of the frozen embeddings of prompt and chosen sample, in [-1, 1].
        alpha: strength; the authors' value is not known.
    """
    return torch.exp(-alpha * (1 - chosen_similarity))


@weighting("column", source="ours", evidence="ours", column="name")
def column_weights(*, values: Tensor, name: str, power: Number = 1.0) -> Tensor:
    """Take the weights from any column or quantity of one number a record, such as ``chosen_score``.

    Args:
        values: (B,) that tensor.
        name: its vocabulary name.
        power: exponent; -1 weighs by the reciprocal.

    Raises:
        ShapeError: it has more than one number a record.
        ConfigError: a weight is negative or not finite.
    """
    if values.dim() != 1:
        raise ShapeError(f"weighting 'column': {name} has shape {tuple(values.shape)}; one number a record is needed")
    weights = values.detach() ** power
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise ConfigError(f"weighting 'column': {name} to the power {power:g} must be finite and not negative")
    return weights


@weighting("gap", source="ours, after Pattnaik et al., Curry-DPO, arXiv:2403.07230", evidence="ours")
def gap_weights(
    *, chosen_score: Tensor, rejected_score: Tensor, lowest: Number = 0.0, highest: Number | None = None
) -> Tensor:
    """Keep pairs whose scores differ enough, and not too much: a stage of a curriculum.

    Args:
        chosen_score: (B,) of the chosen sample.
        rejected_score: (B,) of the rejected one.
        lowest: smallest difference that is kept, in the score's unit.
        highest: largest one; none where not given.
    """
    gap = chosen_score - rejected_score
    kept = gap >= lowest if highest is None else (gap >= lowest) & (gap <= highest)
    return kept.to(gap.dtype)


@weighting("margin", source="ours, after Pattnaik et al., Curry-DPO, arXiv:2403.07230", evidence="ours")
def margin_weights(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    lowest: Number | None = None,
    highest: Number | None = None,
    outside: Probability = 0.0,
) -> Tensor:
    """Keep pairs by how well the policy tells them apart already: neither learnt ones nor hopeless ones.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) of the rejected one.
        lowest: smallest difference of log-ratios that is kept; none where not given.
        highest: largest one; none where not given.
        outside: weight of the others.
    """
    margin = (chosen_log_ratio - rejected_log_ratio).detach()
    kept = torch.ones_like(margin, dtype=torch.bool)
    if lowest is not None:
        kept = kept & (margin >= lowest)
    if highest is not None:
        kept = kept & (margin <= highest)
    inside = kept.to(margin.dtype)
    return inside + outside * (1 - inside)


@weighting(
    "curriculum",
    source="ours, after Pattnaik et al., Curry-DPO, arXiv:2403.07230",
    evidence="ours",
    init=lambda: {"updates": torch.zeros((), dtype=torch.float64)},
)
def curriculum_weights(
    *,
    chosen_score: Tensor,
    rejected_score: Tensor,
    state: dict[str, Tensor],
    easiest: Number = 1.0,
    hardest: Number = 0.0,
    updates: PositiveInt = 1000,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Keep pairs that are easy enough so far: the difference of scores asked for falls as training goes on.

    Args:
        chosen_score: (B,) of the chosen sample.
        rejected_score: (B,) of the rejected one.
        state: updates done.
        easiest: the smallest difference that is kept at first, in the score's unit.
        hardest: the smallest one at the end.
        updates: how many updates it takes to get there, in equal steps.
    """
    share = (state["updates"] / updates).clamp(max=1.0)
    threshold = easiest + (hardest - easiest) * share
    gap = chosen_score - rejected_score
    return (gap >= threshold).to(gap.dtype), {"updates": state["updates"] + 1}
