"""DCPO needs captions of single candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from diffpref.core.contracts import Candidate, Caption
from diffpref.data import open_records, write_store
from method_cases import MethodCase


def prepare(folder: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """Write the recipe's data with a caption and a paraphrase for each candidate."""

    def told(prompt: str, number: int, one: Candidate) -> Candidate:
        captions = (Caption("generated", f"{prompt}, {number}"), Caption("generated_60", f"not {prompt}"))
        return replace(one, captions=captions)

    records = [
        replace(record, candidates=tuple(told(record.prompt, n, one) for n, one in enumerate(record.candidates)))
        for record in open_records(keys["data"]["source"])
    ]
    write_store(folder / "captioned", records)
    return {**keys, "data": {**keys["data"], "source": str(folder / "captioned")}}


CASE = MethodCase("dcpo", prepare=prepare)
