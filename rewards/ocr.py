"""Text in a picture, read by an OCR engine and compared with what the prompt quotes (Flow-GRPO, arXiv 2505.05470)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError, DataError
from diffpref.rewards import registry
from diffpref.rewards._edit_distance import edit_distance
from diffpref.rewards._media import as_pictures, check_lengths
from diffpref.rewards._rapidocr import load_rapidocr

__all__ = ["Engine", "OcrReward", "load_ocr", "quoted", "reading_score"]

Engine: TypeAlias = Callable[[Image.Image], Sequence[tuple[str, float]]]
"""An RGB picture to the texts in it, in reading order, each with a confidence. ``version``, if it has one, is kept."""

_QUOTES = re.compile(
    '"([^"]*)"|\N{LEFT DOUBLE QUOTATION MARK}([^\N{RIGHT DOUBLE QUOTATION MARK}]*)\N{RIGHT DOUBLE QUOTATION MARK}'
)


def quoted(prompt: str) -> str:
    """Return the text between the first pair of double quotes, straight or typographic; ``""`` if there is none.

    >>> quoted('a sign that says "OPEN" by a door')
    'OPEN'
    """
    match = _QUOTES.search(prompt)
    return "" if match is None else (match[1] or match[2] or "")


def _squeezed(text: str) -> str:
    return "".join(text.lower().split())


def reading_score(target: str, recognised: str) -> float:
    """Return 1 where the target was read, less for each letter that is wrong, 0 where all of them are.

    Case and white space do not count. A target somewhere within what was read scores 1; else it is
    ``1 - min(distance, len(target)) / len(target)`` with Levenshtein's distance to *all* that was read.

    Args:
        target: not empty.
        recognised: all texts of the picture, joined.

    Source: yifan123/flow_grpo, flow_grpo/ocr.py, which takes out spaces only.
    """
    target, recognised = _squeezed(target), _squeezed(recognised)
    if target in recognised:
        return 1.0
    return 1 - min(edit_distance(recognised, target), len(target)) / len(target)


class OcrReward:
    """Scores how well a picture writes what its prompt quotes.

    Args:
        engine: reads.
        without_quotes: what a prompt without a quoted text is: ``"error"``, or ``"nan"``, no score.
    """

    def __init__(self, engine: Engine, without_quotes: Literal["error", "nan"] = "error") -> None:
        self.engine, self.without_quotes = engine, without_quotes

    @property
    def info(self) -> RewardInfo:
        """Name, the engine's version, licence, range."""
        version = getattr(self.engine, "version", None) or getattr(self.engine, "__name__", type(self.engine).__name__)
        licence = "Apache-2.0" if str(version).startswith("rapidocr-") else "of the engine"
        return RewardInfo(name="ocr", version=f"1+{version}", licence=licence, range=(0.0, 1.0), preprocessing="rgb")

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 in [0, 1]; NaN, if asked for, where a prompt quotes nothing.

        The official code scores a picture on which the engine fails 0; here that is an error.

        Raises:
            ShapeError: not as many prompts as pictures.
            DataError: an item is no picture, its prompt quotes no text, or the engine gave something else than texts.
        """
        check_lengths("ocr", media, prompts, metadata)
        pictures = as_pictures("ocr", media)
        pairs = enumerate(zip(pictures, prompts, strict=True))
        return torch.tensor([self._one(number, *pair) for number, pair in pairs], dtype=torch.float32)

    def _one(self, number: int, picture: Image.Image, prompt: str) -> float:
        target = quoted(prompt)
        if not _squeezed(target):
            if self.without_quotes == "nan":
                return float("nan")
            raise DataError(
                f"reward 'ocr', item {number}: the prompt has no text in double quotes to look for: {prompt!r};"
                " take such prompts out, or give without_quotes: nan to leave them without a score"
            )
        try:
            read = "".join(text for text, confidence in self.engine(picture) if confidence > 0)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"reward 'ocr', item {number}: an engine gives (text, confidence) pairs, got an error: {error}"
            ) from error
        return reading_score(target, read)


@registry.register("ocr")
def load_ocr(
    path: str | None = None, *, engine: Engine | None = None, without_quotes: Literal["error", "nan"] = "error"
) -> Reward:
    """Return the reward.

    Args:
        path: not taken; the engine has its own models.
        engine: any callable, see `Engine`; None: RapidOCR with the PP-OCR models of its wheel (extra ``ocr``), whose
            readings differ from those of the PaddleOCR 2.9.1 of the official code.
        without_quotes: see `OcrReward`.

    Raises:
        ConfigError: a path, or no engine and no RapidOCR installed.
    """
    if path is not None:
        raise ConfigError(f"reward 'ocr' takes no path, got '{path}'; give an engine of your own in Python")
    return OcrReward(load_rapidocr() if engine is None else engine, without_quotes)
