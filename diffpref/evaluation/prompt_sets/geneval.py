"""GenEval (Ghosh et al., NeurIPS 2023, arXiv 2310.11513): 553 prompts of six tasks and what each picture must show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffpref.evaluation.prompt_sets._published import Content, published
from diffpref.evaluation.prompt_sets._tables import read_json_lines

__all__ = ["read_geneval"]


@published(
    "geneval",
    files=["evaluation_metadata.jsonl"],
    origin="https://github.com/djghosh13/geneval",
    licence="MIT",
    expected=553,
    folder="prompts",
)
def read_geneval(files: Sequence[Path]) -> Content:
    """Read lines ``{tag, include, exclude?, prompt}``; they are the metadata that the reward ``geneval`` wants."""
    rows = [row for file in files for row in read_json_lines(file, "tag", "include", "prompt")]
    return Content([row["prompt"] for row in rows], {"tag": [(str(row["tag"]),) for row in rows]}, rows)
