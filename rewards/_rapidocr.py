"""RapidOCR as an engine: PP-OCR models of its own wheel, through onnxruntime (extra ``ocr``)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from PIL import Image

from diffpref.core.errors import ConfigError
from diffpref.rewards._installed import is_installed

__all__ = ["load_rapidocr"]

PACKAGES = ("rapidocr", "onnxruntime")


class _RapidOcr:
    """A picture to texts with confidences, from its top to its bottom."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        # its own floor of confidence, 0.5, would hide what the reward counts
        self._engine: Any = RapidOCR(params={"Global.text_score": 0.0, "Global.log_level": "error"})
        self.version = f"rapidocr-{version('rapidocr')}"

    def __call__(self, picture: Image.Image) -> list[tuple[str, float]]:
        found = self._engine(picture)
        if found.txts is None:
            return []
        return [(str(text), float(confidence)) for text, confidence in zip(found.txts, found.scores, strict=True)]


def load_rapidocr() -> _RapidOcr:
    """Return the engine.

    Raises:
        ConfigError: a package is not installed; one line each, naming the extra.
    """
    problems = [
        f"reward 'ocr': '{package}' is not installed; pip install 'diffpref[ocr]', or give an engine of your own"
        for package in PACKAGES
        if not is_installed(package)
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    return _RapidOcr()
