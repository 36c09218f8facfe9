"""Clips that are judged by parts: the first is better at the beginning, the second at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Judgement
from diffpref.data import open_records, write_store
from method_cases import FAMILIES, VIDEOS, MethodCase


def prepare(folder: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """Write the recipe's clips, at 4 frames a second, with judgements of their quarters of a second."""
    parts = tuple(
        Judgement(0, 1, probability, start=start, end=start + 0.25)
        for start, probability in ((0.0, 1.0), (0.25, 0.5), (0.5, 0.0))
    )
    records = [
        replace(record, candidates=record.candidates[:2], judgements=parts)
        for record in open_records(keys["data"]["source"])
    ]
    write_store(folder / "judged", records)
    return {**keys, "data": {**keys["data"], "source": str(folder / "judged"), "score": None}}


NO_FRAMES = "compares clips a latent frame at a time, and a picture has no frames"
CASE = MethodCase(
    "dense_dpo", empty=dict.fromkeys((name for name in FAMILIES if name not in VIDEOS), NO_FRAMES), prepare=prepare
)
