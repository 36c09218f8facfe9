"""VBench (Huang et al., CVPR 2024, arXiv 2311.17982): 946 prompts for videos, each with the dimensions it tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffpref.core.errors import DataError
from diffpref.evaluation.prompt_sets._published import Content, published
from diffpref.evaluation.prompt_sets._tables import read_json_file

__all__ = ["read_vbench"]


@published(
    "vbench",
    files=["VBench_full_info.json"],
    origin="https://github.com/Vchitect/VBench",
    licence="Apache-2.0",
    expected=946,
    folder="vbench",
)
def read_vbench(files: Sequence[Path]) -> Content:
    """Read a list of ``{prompt_en, dimension, auxiliary_info?}``; two prompts come twice, with other dimensions.

    Raises:
        DataError: an entry is another thing.
    """
    rows = [row for file in files for row in _rows(file)]
    # spelt with spaces, as the constants of the total are
    dimensions = [tuple(name.replace("_", " ") for name in row["dimension"]) for row in rows]
    return Content([row["prompt_en"] for row in rows], {"dimension": dimensions}, rows)


def _rows(file: Path) -> list[dict[str, Any]]:
    rows = read_json_file(file)
    wanted = {"prompt_en", "dimension"}
    for number, row in enumerate(rows if isinstance(rows, list) else [None], start=1):
        if not isinstance(row, dict) or not wanted <= row.keys() or not isinstance(row["dimension"], list):
            raise DataError(f"{file}, entry {number}: expected an object with prompt_en and a list dimension")
    result: list[dict[str, Any]] = rows
    return result
