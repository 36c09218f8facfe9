"""Where a loop stands: ``loop.json``, written atomically whenever a stage of a round has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffpref.core.errors import CheckpointError
from diffpref.core.files import read_json, write_json
from diffpref.loops.stage import Iterate, Stage

__all__ = ["FILE", "Progress"]

FILE = "loop.json"
FORMAT = 1


@dataclass
class Progress:
    """The rounds that are done, and what is at work.

    Args:
        output: folder of the loop; paths inside it are kept relative to it, so that the folder can be moved.
        method: name of the loop's method.
        rounds: how many there are to be.
        done: a dict for each round that has ended: what it began from, what its run left, what the next begins from.
        stage: of the round at work: ``"draw"``, ``"train"`` or ``""``.
    """

    output: Path
    method: str
    rounds: int
    done: list[dict[str, Any]] = field(default_factory=list)
    stage: str = ""

    @classmethod
    def open(cls, output: Path, method: str, rounds: int) -> Progress:
        """Return where the loop of a folder stands; at its beginning where there is none.

        Raises:
            CheckpointError: the file is damaged, or of another method.
        """
        path = output / FILE
        if not path.is_file():
            return cls(output, method, rounds)
        try:
            found = read_json(path)
            done = list(found["done"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); remove it to begin again") from error
        if found.get("format") != FORMAT or found.get("method") != method:
            raise CheckpointError(
                f"{path}: of format {found.get('format')} and loop '{found.get('method')}', expected format {FORMAT}"
                f" and '{method}'; choose another output folder"
            )
        return cls(output, method, rounds, done, str(found.get("stage", "")))

    @property
    def round(self) -> int:
        """The round at work."""
        return len(self.done)

    def stage_of(self, number: int) -> Stage:
        """Return what a round is told; all rounds before it must be done."""
        before = self.done[:number]
        starts = (Iterate(), *(self._iterate(entry["next"]) for entry in before))
        results = tuple(self._iterate(entry["result"]) for entry in before)
        stores = tuple(self.output / "rounds" / f"{n:03d}" / "data" for n in range(number))
        return Stage(number, self.rounds, starts, results, stores)

    def begin(self, stage: str) -> None:
        """Write down that a stage of the round at work has begun."""
        self.stage = stage
        self.write()

    def finish(self, result: Iterate, following: Iterate, told: Mapping[str, Any]) -> None:
        """Write down that a round has ended.

        Args:
            result: what its run left.
            following: what the next round begins from.
            told: counts and measures, JSON-ready.
        """
        self.done.append(
            {"round": self.round, "result": self._relative(result), "next": self._relative(following), **told}
        )
        self.begin("")

    def write(self) -> None:
        """Write the file."""
        self.output.mkdir(parents=True, exist_ok=True)
        at = {"round": self.round, "stage": self.stage} if self.round < self.rounds else None
        value = {"format": FORMAT, "method": self.method, "rounds": self.rounds, "at": at, "done": self.done}
        write_json(self.output / FILE, {**value, "stage": self.stage})

    def _relative(self, iterate: Iterate) -> dict[str, str]:
        inside = {}
        for name, path in iterate.to_json().items():
            where = Path(path)
            inside[name] = where.relative_to(self.output).as_posix() if where.is_relative_to(self.output) else path
        return inside

    def _iterate(self, value: Mapping[str, str]) -> Iterate:
        return Iterate(**{name: str(self.output / path) for name, path in value.items()})
