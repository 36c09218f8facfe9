"""The HPSv2 benchmark (Wu et al., arXiv 2306.09341): 800 prompts of each of four styles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffpref.core.errors import DataError
from diffpref.evaluation.prompt_sets._published import Content, published
from diffpref.evaluation.prompt_sets._tables import read_json_file

__all__ = ["STYLES", "read_hpdv2"]

STYLES = ("anime", "concept-art", "paintings", "photo")


@published(
    "hpdv2",
    files=[f"{style}.json" for style in STYLES],
    origin="the hub's data set zhwang/HPDv2",
    licence="none is stated on the card; the code is Apache-2.0",
    expected=3200,
    folder="benchmark",
)
def read_hpdv2(files: Sequence[Path]) -> Content:
    """Read lists of prompts, one file a style; 28 prompts come twice.

    Raises:
        DataError: a file is no list of texts.
    """
    prompts: list[str] = []
    styles: list[tuple[str, ...]] = []
    for file in files:
        found = read_json_file(file)
        if not isinstance(found, list) or not all(isinstance(prompt, str) for prompt in found):
            raise DataError(f"{file}: expected a list of prompts")
        prompts += found
        styles += [(file.stem,)] * len(found)
    return Content(prompts, {"style": styles})
