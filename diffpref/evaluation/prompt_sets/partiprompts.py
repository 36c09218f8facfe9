"""PartiPrompts (Yu et al., TMLR 2022, arXiv 2206.10789): 1,632 prompts by category and challenge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffpref.evaluation.prompt_sets._published import Content, published
from diffpref.evaluation.prompt_sets._tables import read_table

__all__ = ["read_partiprompts"]


@published(
    "partiprompts",
    files=["PartiPrompts.tsv"],
    origin="https://github.com/google-research/parti",
    licence="Apache-2.0",
    expected=1632,
)
def read_partiprompts(files: Sequence[Path]) -> Content:
    """Read the table; quotes are part of the prompts: a usual reader of CSV would cut them from one of them."""
    rows = [row for file in files for row in read_table(file, ["Prompt", "Category", "Challenge"], tabs=True)]
    return Content(
        [row["Prompt"] for row in rows],
        {axis.lower(): [(row[axis],) for row in rows] for axis in ("Category", "Challenge")},
    )
