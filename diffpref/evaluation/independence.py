"""Which judges took no part in labelling what a contender was trained on. A model can learn to please its labeller."""

from __future__ import annotations

from collections.abc import Sequence

from diffpref import rewards
from diffpref.config import Recipe
from diffpref.evaluation.standings import Standings
from diffpref.evaluation.table import FACTS_RIGHT

__all__ = ["independence_warnings", "independent_measures", "labels_of"]

ENOUGH = 2
"""Judges that were not trained on, without which a gain may be the labeller's alone."""


def labels_of(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the scores that ordered a run's training data; none where its records carry judgements."""
    named = recipe.data.score or []
    return tuple(name.partition("@")[0] for name in ([named] if isinstance(named, str) else named))


def independent_measures(standings: Standings, labels: Sequence[str]) -> list[str]:
    """Return the measures that are none of the labellers: neither of their name, nor the other HPS."""
    taken = {_kind(label) for label in labels}
    facts = any(column.facts for column in standings.columns.values())
    measures = [*([FACTS_RIGHT] if facts and "oracle" not in taken else []), *standings.judges]
    return [measure for measure in measures if _kind(measure) not in taken]


def independence_warnings(standings: Standings) -> list[str]:
    """Return a line for each contender that fewer than two independent measures judge."""
    lines = []
    for name, column in standings.columns.items():
        left = independent_measures(standings, column.labelled_by)
        if column.labelled_by and len(left) < ENOUGH:
            told = f"only {left[0]} is" if left else "none of the judges is"
            lines.append(
                f"{name}: trained on labels by {', '.join(column.labelled_by)}, and {told} independent of them; add"
                " judges that did not label"
            )
    return lines


def _kind(name: str) -> str:
    name = rewards.SHORT_FORMS.get(name, (name,))[0]
    return "hps" if name in rewards.HPS_VERSIONS.values() else name
