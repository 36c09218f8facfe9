"""DPG-Bench (Hu et al., arXiv 2403.05135): 1,065 long prompts with questions that depend on each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffpref.core.errors import DataError
from diffpref.evaluation.prompt_sets._published import Content, published
from diffpref.evaluation.prompt_sets._tables import read_table

__all__ = ["read_dpg_bench"]

COLUMNS = ("item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language")


@published(
    "dpg_bench",
    files=["dpg_bench.csv"],
    origin="https://github.com/TencentQQGYLab/ELLA",
    licence="none is stated in the repository",
    expected=1065,
    folder="dpg_bench",
)
def read_dpg_bench(files: Sequence[Path], *, legacy: bool = False) -> Content:
    """Read a table with one question a row.

    Metadata of a prompt: ``{"item_id": ..., "questions": {1: {"question", "category", "depends_on"}, ...}}``, in the
    order of the table; ``category`` is what stands before the bracket of the tuple, ``depends_on`` the numbers of the
    questions that must hold too. `diffpref.evaluation.dpg_score` takes the answers.

    Args:
        files: the table.
        legacy: leave out the first row, as the official code does, with which the first prompt loses its first
            question.

    Raises:
        DataError: a number that is none, or a question that depends on one that is not there.
    """
    rows = [(file, number, row) for file in files for number, row in enumerate(read_table(file, COLUMNS), start=1)]
    items: dict[str, dict[str, Any]] = {}
    for file, number, row in rows[1:] if legacy else rows:
        try:
            depends_on = [int(part) for part in row["dependency"].split(",")]
            question = int(row["proposition_id"])
        except ValueError as error:
            raise DataError(f"{file}, row {number}: proposition_id and dependency are numbers: {error}") from error
        item = items.setdefault(row["item_id"], {"item_id": row["item_id"], "prompt": row["text"], "questions": {}})
        item["questions"][question] = {
            "question": row["question_natural_language"],
            "category": row["tuple"].split("(")[0].strip(),
            "depends_on": tuple(part for part in depends_on if part),
        }
    return Content([item["prompt"] for item in items.values()], {}, list(items.values()))
