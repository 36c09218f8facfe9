"""From a source to the items that a run trains on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from diffpref.config import Data
from diffpref.core.contracts import Record
from diffpref.core.errors import ConfigError
from diffpref.data import (
    Combined,
    Item,
    Ranking,
    list_view,
    open_prompts,
    open_records,
    pair_view,
    point_view,
    prompt_view,
    scored_points,
    usable_records,
    winner_view,
)
from diffpref.data.aspects import equal_prompt_weights
from diffpref.data.clips import Check, check_media
from diffpref.data.combined import ScoreName
from diffpref.objectives.compose import Composition
from diffpref.ranking import Calibration

__all__ = ["load_items", "score_settings", "settle_scores"]

logger = logging.getLogger(__name__)


def score_settings(data: Data) -> tuple[ScoreName | None, float, float]:
    """Return what orders candidates, s of its probabilities, and the weight of ties, as a recipe's section says.

    Raises:
        ConfigError: the calibration is of another score.
        DataError: there is no such calibration.
    """
    if isinstance(data.score, list):
        weights = None if data.score_weights is None else tuple(data.score_weights)
        return Combined(tuple(data.score), data.combine, weights), data.score_scale, 0.0
    if data.calibration is None or data.score is None:
        return data.score, data.score_scale, 0.0
    found = Calibration.load(data.calibration)
    wanted = f"{found.score}@{found.version}"
    if data.score not in (found.score, wanted):
        raise ConfigError(f"data.calibration: {data.calibration} is of {wanted}, and data.score is {data.score}")
    return wanted, found.scale, found.tie_weight


def load_items(
    data: Data,
    view: str,
    quarantine: str | None = None,
    texts: bool = False,
    columns: frozenset[str] = frozenset(),
    check: Check = check_media,
    winners_alone: bool = False,
    min_non_tie: float = 0.0,
) -> tuple[Sequence[Record], Sequence[Item]]:
    """Read a source and return its records and what a view makes of them.

    Args:
        data: the recipe's section.
        view: a name of `diffpref.data.VIEWS`.
        quarantine: where unusable records are listed.
        texts: whether the source's columns are texts, and not pictures.
        columns: that the objective and the method need; where single samples need a score and no label, every scored
            candidate is one.
        check: refuses a candidate that the model cannot be shown.
        winners_alone: of pairs nobody looks at the losers, so that records without a loser will do.
        min_non_tie: of pairs that are judged by parts: the share of parts without a tie that is not enough.

    Raises:
        DataError: unreadable, or nothing in it gives an item of this view.
    """
    records, items = _view(data, view, quarantine, texts, columns, check, winners_alone, min_non_tie)
    if data.equal_prompts and view != "prompts":
        told = [item.columns.get("weight", 1.0) for item in items]
        weights = equal_prompt_weights([item.prompt for item in items], told)
        items = [replace(item, weight=weight) for item, weight in zip(items, weights, strict=True)]
    return records, items


def _view(
    data: Data,
    view: str,
    quarantine: str | None,
    texts: bool,
    columns: frozenset[str],
    check: Check,
    winners_alone: bool,
    min_non_tie: float,
) -> tuple[Sequence[Record], Sequence[Any]]:
    if view == "prompts":
        asked = open_prompts(data.source, columns=data.columns)
        return asked, prompt_view(asked)
    opened = open_records(data.source, columns=data.columns, on_bad_shard=data.on_bad_shard, texts=texts)
    records = usable_records(opened, quarantine=quarantine, limit=data.max_unusable, check=check)
    score, scale, tie_weight = score_settings(data)
    common: dict[str, Any] = {
        "drop_ties": data.drop_ties,
        "max_unusable": data.max_unusable,
        "score_scale": scale,
    }
    if view == "lists":
        return records, list_view(records, score, **common)
    common |= {
        "pairing": data.pairing,
        "min_gap": data.min_gap,
        "drop_identical": data.drop_identical,
        "judgements": data.judgements,
    }
    if view == "pairs":
        soft = data.score_labels == "soft"
        soft_options: dict[str, Any] = {"soft": soft, "tie_weight": tie_weight, "aspects": data.aspects}
        if score is None and "segment_label" in columns:
            soft_options |= {"parts": True, "min_non_tie": min_non_tie}
        if data.rarity_bins is not None:
            soft_options["rarity_bins"] = data.rarity_bins
        made = winner_view if winners_alone else pair_view
        return records, made(records, score=score, **soft_options, **common)
    if "score" in columns and "label" not in columns and score is not None:
        return records, scored_points(records, score, data.max_unusable)
    return records, point_view(records, score=score, mixed=data.mixed_labels, **common)


def settle_scores(items: Sequence[Item], rule: str, composition: Composition) -> Sequence[Item]:
    """Return lists whose scores are in the unit that the objective reads.

    Args:
        items: of a view; only lists are changed.
        rule: ``"raw"``; ``"win_rate"``; or ``"auto"``: win rates where an objective's domain does not hold the scores.
        composition: the objectives.
    """
    lists = [item for item in items if isinstance(item, Ranking)]
    if not lists or rule == "raw":
        return items
    domains = [term.spec.domain["list_scores"] for term in composition.terms if "list_scores" in term.spec.domain]
    values = [score for item in lists for score in item.scores]
    low, high = min(values), max(values)
    if rule == "auto" and not any(low < lowest or high > highest for lowest, highest in domains):
        return items
    if rule == "auto":
        logger.info("data: scores of %g to %g are beyond what the objective reads; lists get win rates", low, high)
    return [replace(item, scores=item.win_rates) for item in lists]
