"""RankDPO needs lists, and two rewards that rank them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Candidate, Score
from diffpref.data import open_records, write_store
from method_cases import MethodCase


def prepare(folder: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """Write the recipe's data with a second score."""

    def scored(number: int, one: Candidate) -> Candidate:
        return replace(one, scores=(*one.scores, Score("other", "1", float(number % 3))))

    records = [
        replace(record, candidates=tuple(scored(row + place, one) for place, one in enumerate(record.candidates)))
        for row, record in enumerate(open_records(keys["data"]["source"]))
    ]
    write_store(folder / "ranked", records)
    data = {"source": str(folder / "ranked"), "score": [keys["data"]["score"], "other"], "combine": "win_fraction"}
    return {**keys, "data": {**keys["data"], **data}}


CASE = MethodCase("rank_dpo", prepare=prepare)
