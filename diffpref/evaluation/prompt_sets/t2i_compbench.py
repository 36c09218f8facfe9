"""T2I-CompBench++ (Huang et al., NeurIPS 2023, arXiv 2307.06350): 300 validation prompts of each of eight kinds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffpref.evaluation.prompt_sets._published import Content, published
from diffpref.evaluation.prompt_sets._tables import read_lines

__all__ = ["KINDS", "read_t2i_compbench"]

KINDS = ("color", "shape", "texture", "spatial", "3d_spatial", "numeracy", "non_spatial", "complex")


@published(
    "t2i_compbench",
    files=[f"{kind}_val.txt" for kind in KINDS],
    origin="https://github.com/Karine-Huang/T2I-CompBench",
    licence="MIT",
    expected=2400,
    folder="examples/dataset",
)
def read_t2i_compbench(files: Sequence[Path]) -> Content:
    """Read files with one prompt a line; the category is the file's name without ``_val``."""
    prompts: list[str] = []
    kinds: list[tuple[str, ...]] = []
    for file in files:
        found = read_lines(file)
        prompts += found
        kinds += [(file.stem.removesuffix("_val"),)] * len(found)
    return Content(prompts, {"category": kinds})
