"""The calibration of a score: what its gaps are worth as probabilities, measured on labelled pairs, as a small file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from diffpref.core.errors import DataError, ShapeError
from diffpref.core.files import read_json, write_json
from diffpref.core.randomness import hash_key
from diffpref.ranking.reliability import calibration_error, fitted_scale, log_loss, win_probability

__all__ = ["FOLDS", "Calibration", "calibrate", "range_scale"]

FOLDS = 5
FORMAT = 1


@dataclass(frozen=True)
class Calibration:
    """What gaps of one score mean. ``before`` is by the scale that was there, ``after`` by the new one.

    Args:
        score: name.
        version: of the reward that gave the scores; a calibration holds for no other.
        scale: s in P(a better than b) = sigmoid(s * (score_a - score_b)).
        tie_weight: nu of Davidson's model of ties, 0 where ties were halves; see `win_probability`.
        rule: ``"labels"``: the scale under which the labels are likeliest. ``"range"``: one over the range of the
            scores, as SmPO's code has it (arXiv:2506.02698).
        pairs: labelled pairs behind it.
        ties: of which so many were ties.
        scale_before: the reward's own ``pair_scale``, else 1.
        error_before: expected calibration error, 0..1.
        error_after: the same; of a fitted scale on pairs that the fit had not seen.
        loss_before: mean cross-entropy, nats.
        loss_after: the same; of a fitted scale on pairs that the fit had not seen.
        smallest: score that was seen.
        largest: score that was seen.
        mean: of the scores.
        std: of the scores.
    """

    score: str
    version: str
    scale: float
    tie_weight: float
    rule: Literal["labels", "range"]
    pairs: int
    ties: int
    scale_before: float
    error_before: float
    error_after: float
    loss_before: float
    loss_after: float
    smallest: float
    largest: float
    mean: float
    std: float

    def probability(self, first: float, second: float) -> float:
        """Return P(the candidate of score ``first`` is better), half of ties included."""
        return win_probability(first - second, self.scale, self.tie_weight)

    def save(self, path: Path | str) -> None:
        """Write it as JSON, atomically."""
        write_json(Path(path), {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: Path | str) -> Calibration:
        """Read what `save` wrote.

        Raises:
            DataError: there is no such file, or it is no calibration.
        """
        try:
            value = read_json(Path(path))
            if value.pop("format") != FORMAT:
                raise DataError(f"{path}: a calibration of another format; expected {FORMAT}")
            found = cls(**value)
            if not (found.scale > 0 and math.isfinite(found.scale) and found.std >= 0):
                raise ValueError(f"scale {found.scale}")
        except FileNotFoundError:
            raise DataError(f"{path}: no such calibration; make it with 'diffpref reward calibrate'") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not a calibration of 'diffpref reward calibrate' ({error})") from error
        return found


def range_scale(scores: Sequence[float]) -> float:
    """Return the scale of SmPO's soft labels: one over largest minus smallest score of the data (arXiv:2506.02698).

    Raises:
        DataError: fewer than two different scores.

    >>> range_scale([0.1, 0.3, 0.6])
    2.0
    """
    if not scores or min(scores) == max(scores):
        raise DataError(f"{len(scores)} scores without two different ones have no range")
    return 1.0 / (max(scores) - min(scores))


def calibrate(
    score: str,
    version: str,
    pairs: Sequence[tuple[float, float]],
    labels: Sequence[float],
    groups: Sequence[str],
    *,
    weights: Sequence[float] | None = None,
    scale_before: float | None = None,
    rule: Literal["labels", "range"] = "labels",
    ties: Literal["half", "davidson"] = "half",
) -> Calibration:
    """Measure a score's probabilities against labelled pairs, and fit their scale.

    Args:
        score: name.
        version: of the reward that gave the scores.
        pairs: (N,) scores of first and second.
        labels: (N,) P(first is better); 1/2 is a tie.
        groups: (N,) what belongs together, such as the id of the prompt: each is left out of a fit as a whole, in one
            of `FOLDS` parts drawn by key, and judged by that fit.
        weights: (N,) of the pairs; not given: 1. They count in fits; errors are of pairs as they are.
        scale_before: what probabilities were made with until now; not given: 1.
        rule: see `Calibration`.
        ties: see `fitted_scale`; with ``rule="range"`` they are halves.

    Raises:
        ShapeError: not equally many of all, or none.
        DataError: no scale can be fitted; or the groups are too few to leave some out.
    """
    if not len(pairs) == len(labels) == len(groups) or not pairs:
        raise ShapeError(f"got {len(pairs)} pairs, {len(labels)} labels and {len(groups)} groups; give one of each")
    gaps = [first - second for first, second in pairs]
    seen = [value for pair in pairs for value in pair]
    counted = [1.0] * len(gaps) if weights is None else list(weights)
    before = 1.0 if scale_before is None else scale_before
    if rule == "range":
        scale, tie_weight = range_scale(seen), 0.0
        after = [win_probability(gap, scale) for gap in gaps]
    else:
        scale, tie_weight = fitted_scale(gaps, labels, counted, ties=ties)
        after = _unseen(gaps, labels, counted, groups, ties)
    told = [win_probability(gap, before) for gap in gaps]
    mean = math.fsum(seen) / len(seen)
    return Calibration(
        score=score,
        version=version,
        scale=scale,
        tie_weight=tie_weight,
        rule=rule,
        pairs=len(pairs),
        ties=sum(label == 0.5 for label in labels),
        scale_before=before,
        error_before=calibration_error(told, labels),
        error_after=calibration_error(after, labels),
        loss_before=_finite_loss(told, labels),
        loss_after=_finite_loss(after, labels),
        smallest=min(seen),
        largest=max(seen),
        mean=mean,
        std=math.sqrt(math.fsum((value - mean) ** 2 for value in seen) / len(seen)),
    )


def _unseen(
    gaps: Sequence[float],
    labels: Sequence[float],
    weights: Sequence[float],
    groups: Sequence[str],
    ties: Literal["half", "davidson"],
) -> list[float]:
    """Return the probability of each pair by a scale that was fitted without its group."""
    names = sorted(set(groups), key=lambda name: hash_key("calibration", name))
    if len(names) < FOLDS:
        raise DataError(
            f"labels of {len(names)} prompts; at least {FOLDS} are needed to judge a fit on others than its own"
        )
    part = {name: number % FOLDS for number, name in enumerate(names)}
    result = [0.0] * len(gaps)
    for fold in range(FOLDS):
        rest = [i for i, group in enumerate(groups) if part[group] != fold]
        columns = ([column[i] for i in rest] for column in (gaps, labels, weights))
        scale, tie_weight = fitted_scale(*columns, ties=ties)
        for i, group in enumerate(groups):
            if part[group] == fold:
                result[i] = win_probability(gaps[i], scale, tie_weight)
    return result


def _finite_loss(probabilities: Sequence[float], labels: Sequence[float]) -> float:
    """Return the loss of probabilities that stop short of certainty, so that it can be written and compared."""
    least = 1e-12
    return log_loss([min(max(p, least), 1 - least) for p in probabilities], labels)
