"""DrawBench (Saharia et al., NeurIPS 2022, arXiv 2205.11487): 200 prompts of 11 categories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffpref.core.errors import DataError
from diffpref.evaluation.prompt_sets._published import Content, published
from diffpref.evaluation.prompt_sets._tables import read_json_file, read_table

__all__ = ["read_drawbench"]


@published(
    "drawbench",
    files=["drawbench.json"],
    origin="the hub's data set zhwang/HPDv2, or a table of https://imagen.research.google",
    licence="none is stated",
    expected=200,
    folder="benchmark",
)
def read_drawbench(files: Sequence[Path]) -> Content:
    """Read a table with ``Prompts`` and ``Category``, or a JSON list of prompts, which has no categories.

    Raises:
        DataError: the file is neither.
    """
    file = files[0]
    if file.suffix == ".json":
        found = read_json_file(file)
        if not isinstance(found, list) or not all(isinstance(prompt, str) for prompt in found):
            raise DataError(f"{file}: expected a list of prompts")
        return Content(found)
    rows = read_table(file, ["Prompts", "Category"], tabs=file.suffix == ".tsv")
    return Content([row["Prompts"] for row in rows], {"category": [(row["Category"],) for row in rows]})
