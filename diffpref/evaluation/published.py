"""Numbers that papers report, beside ours: each with its setting and with how sure one can be of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from diffpref.config import load_yaml
from diffpref.core.assets import ASSETS
from diffpref.core.errors import DataError
from diffpref.evaluation.measures import macro_average
from diffpref.evaluation.table import Entry

__all__ = ["COMPARABLE", "Confidence", "PublishedRow", "Setting", "architecture_of", "as_published", "published_rows"]

COMPARABLE = (
    "A number is comparable only with numbers of its own setting: one model differs by 0.8 PickScore between two of"
    " them, by prompts, mean or median, and guidance."
)

Confidence = Literal["source", "notes", "memory"]
"""Read in the paper or its repository; quoted by others and not checked; not checked at all."""

CONFIDENCE = {"source": "read at the source", "notes": "quoted by third parties", "memory": "not verified"}

_ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "sdxl": {"addition_embed_type": "text_time", "cross_attention_dim": 2048, "block_out_channels": [320, 640, 1280]},
    "sd15": {"addition_embed_type": None, "cross_attention_dim": 768, "block_out_channels": [320, 640, 1280, 1280]},
}


@dataclass(frozen=True)
class Setting:
    """Under which conditions numbers were measured.

    Args:
        letter: by which rows name it.
        told: prompts and statistic.
        of: the paper.
        confidence: how the numbers were verified.
    """

    letter: str
    told: str
    of: str
    confidence: Confidence

    def __str__(self) -> str:
        return f"{self.letter}: {self.told} ({self.of}; {CONFIDENCE[self.confidence]})"


@dataclass(frozen=True)
class PublishedRow:
    """What a paper reports of one model.

    Args:
        model: as the paper names it.
        setting: of the numbers.
        values: measure, by the name of our reward where there is one, -> value.
    """

    model: str
    setting: Setting
    values: Mapping[str, float]


def architecture_of(config: Mapping[str, Any]) -> str | None:
    """Return ``"sdxl"`` or ``"sd15"`` for the denoiser's config of such a model of full size; None for others."""
    for name, wanted in _ARCHITECTURES.items():
        if all(_plain(config.get(key)) == value for key, value in wanted.items()):
            return name
    return None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@cache
def published_rows(architecture: str) -> tuple[PublishedRow, ...]:
    """Return what papers report of models of an architecture; nothing for an unknown one.

    Raises:
        DataError: the file names a setting that it does not explain.
    """
    file = ASSETS / "published_numbers.yaml"
    found = load_yaml(file)
    settings = {letter: Setting(letter, **told) for letter, told in found["settings"].items()}
    rows = []
    for row in found["architectures"].get(architecture, ()):
        values = {key: float(value) for key, value in row.items() if key not in ("model", "setting")}
        if row["setting"] not in settings:
            raise DataError(f"{file.name}: {row['model']} is of the setting {row['setting']}, which is not explained")
        rows.append(PublishedRow(row["model"], settings[row["setting"]], values))
    return tuple(rows)


def as_published(entry: Entry, version: str) -> float | None:
    """Return our number in the unit of the papers' tables; None where it is another measure than theirs,
    or there is no finite score.

    HPS stands there as 100 times the cosine, PickScore as the logit, and GenEval as the mean of the tasks' means of its
    strict rule.

    Args:
        entry: a contender's, by a measure.
        version: of that measure: it names output, scale and rule.
    """
    parts = version.split("+")
    if entry.mean is None:
        return None
    if entry.measure in ("hps_v2", "hps_v21"):
        return entry.mean if "x100" in parts else 100 * entry.mean
    if entry.measure == "pickscore":
        return None if {"cosine", "prob", "div26"} & {*parts} else entry.mean
    if entry.measure == "geneval":
        tasks = entry.means.get("tag")
        return macro_average(tasks) if tasks and "strict" in parts else None
    return entry.mean
