"""Pairs that say of themselves that they were drawn from a ground truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from diffpref.data import open_records, write_store
from method_cases import MethodCase


def prepare(folder: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """Write the recipe's data as guided pairs."""
    records = [replace(record, source="guided") for record in open_records(keys["data"]["source"])]
    write_store(folder / "guided", records)
    return {**keys, "data": {**keys["data"], "source": str(folder / "guided")}}


CASE = MethodCase("structural_dpo", prepare=prepare)
