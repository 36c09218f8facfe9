"""What an evaluation found, number by number, and its form on disk (``results.json``, format 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from diffpref.core.errors import ConfigError, DataError, ShapeError, suggest
from diffpref.core.files import read_json, write_json
from diffpref.evaluation.contenders import BASE

__all__ = ["Column", "Standings", "Ties", "finite"]

FORMAT = 2

Ties = Literal["half", "loss"]
"""What an exactly equal score counts: half a win, or a loss."""


@dataclass(frozen=True)
class Column:
    """One contender: N numbers of each measure, in the order of the prompts and seeds.

    Args:
        scores: judge -> N scores; None where the judge gave no finite number.
        facts: fact -> N times whether it holds; empty where nobody looked.
        probes: name -> N numbers that tell what a judge may be fooled by, such as saturated pixels.
        whole: name -> a number that belongs to all pictures together, such as the drift from the base.
        source: where the weights are from, in words.
        digest: of the weights.
        labelled_by: names of the scores whose preferences it was trained on.
        config: sha256 of the run's ``config.yaml``; empty where there is none.
    """

    scores: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    facts: Mapping[str, Sequence[bool]] = field(default_factory=dict)
    probes: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    whole: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    digest: str = ""
    labelled_by: Sequence[str] = ()
    config: str = ""

    @property
    def not_finite(self) -> dict[str, int]:
        """Judge -> how many of its scores were not finite; they are left out of every number."""
        return {name: sum(score is None for score in scores) for name, scores in self.scores.items()}


@dataclass(frozen=True)
class Standings:
    """All contenders on the same prompts and seeds; the first is the base.

    Args:
        prompts: (N,) texts.
        seeds: (N,) of the initial noise.
        columns: contender -> its numbers.
        judges: judge -> version, in the order of the report; the first decides which pictures are shown.
        categories: axis, such as ``category`` -> N tuples of the prompt's labels, mostly one.
        against: the contender with whom the others are compared.
        ties: what an exactly equal score counts.
        level: of all intervals.
        num_draws: resamples behind each interval.
        seed: of the resampling.
        setting: JSON-ready, what the numbers depend on: base, sampler, prompt set, versions; ``media`` is ``clips``
            where clips were drawn.

    Raises:
        ConfigError: nobody goes by the name ``against``.
        ShapeError: not equally many of everything.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    columns: Mapping[str, Column]
    judges: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    against: str = BASE
    ties: Ties = "half"
    level: float = 0.95
    num_draws: int = 10_000
    seed: int = 0
    setting: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.prompts)
        if self.ties not in get_args(Ties):
            raise ConfigError(f"ties: must be half or loss, got '{self.ties}'")
        if self.against not in self.columns:
            hint = suggest(self.against, self.columns) or ";"
            raise ConfigError(f"against: nobody is called '{self.against}'{hint} known: {', '.join(self.columns)}")
        lengths = {"seeds": len(self.seeds)} | {f"categories: {axis}": len(v) for axis, v in self.categories.items()}
        for name, column in self.columns.items():
            lengths |= {
                f"{name}: {measure}": len(values)
                for measure, values in [*column.scores.items(), *column.facts.items(), *column.probes.items()]
            }
        if wrong := next((name for name, length in lengths.items() if length != count), None):
            raise ShapeError(f"{wrong}: expected {count} values, as many as prompts, got {lengths[wrong]}")

    @property
    def num_prompts(self) -> int:
        """How many different prompts there are: the unit that is resampled."""
        return len(set(self.prompts))

    @property
    def noun(self) -> str:
        """What contenders have drawn."""
        return str(self.setting.get("media", "pictures"))

    @property
    def others(self) -> list[str]:
        """The contenders that are compared with ``against``, in their order."""
        return [name for name in self.columns if name != self.against]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "format": FORMAT,
            "num_pairs": len(self.prompts),
            "num_prompts": self.num_prompts,
            **{key: value for key, value in asdict(self).items() if key != "columns"},
            "contenders": {name: asdict(column) for name, column in self.columns.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Standings:
        """Return what `to_json` wrote.

        Raises:
            DataError: another format, or a field that is missing or wrong.
        """
        if value.get("format") == 1:
            raise DataError(
                "results are of format 1, which an earlier diffpref wrote; evaluate again: diffpref evaluate RUN"
            )
        if value.get("format") != FORMAT:
            raise DataError(f"results are of format {value.get('format')!r}, expected {FORMAT}")
        try:
            return cls(
                **{
                    key: _frozen(value[key]) for key in cls.__dataclass_fields__ if key not in ("columns", "categories")
                },
                categories={axis: tuple(map(tuple, labels)) for axis, labels in value["categories"].items()},
                columns={name: _column(found) for name, found in value["contenders"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"results are not those of an evaluation: {error}") from error

    def save(self, path: Path, **more: Any) -> None:
        """Write ``results.json``, atomically; ``more`` is written beside and not read back."""
        write_json(path, {**self.to_json(), **more})

    @classmethod
    def load(cls, path: Path) -> Standings:
        """Read ``results.json``."""
        try:
            return cls.from_json(read_json(path))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _column(value: Mapping[str, Any]) -> Column:
    listed = {
        name: {measure: tuple(values) for measure, values in value[name].items()}
        for name in ("scores", "facts", "probes")
    }
    return Column(
        **listed,
        whole=value["whole"],
        source=value["source"],
        digest=value["digest"],
        labelled_by=tuple(value["labelled_by"]),
        config=value["config"],
    )


def finite(score: float) -> float | None:
    """Return a score as results hold it."""
    return float(score) if math.isfinite(score) else None
