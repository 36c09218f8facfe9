"""The guard of a step: a loss or a gradient that is not finite on any process changes nothing on all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from diffpref.config import Guards
from diffpref.core.errors import NonFiniteError
from diffpref.core.files import read_json, write_json
from diffpref.training.forward import Forward

__all__ = ["NonFiniteGuard", "Refused", "describe", "json_safe"]

KEPT = 100  # refused updates in the report
SHOWN = 8  # names in a message


@dataclass(frozen=True)
class Refused(Exception):
    """An update that must not be applied. Raised on every process at the same point.

    Args:
        what: is not finite: ``"loss"`` or ``"gradient"``.
        records: of all processes, as `describe` gives them.
        gradient_norm: where it was reached.
        parameters: names of those whose gradient is not finite.
    """

    what: str
    records: Sequence[Mapping[str, Any]]
    gradient_norm: float | None = None
    parameters: Sequence[str] = ()


def json_safe(value: Any) -> Any:
    """Return a value with floats that JSON has no number for as text: ``"NaN"``, ``"Infinity"``, ``"-Infinity"``."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: json_safe(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(inner) for inner in value]
    return value


def describe(forward: Forward, terms: Sequence[str], rank: int = 0, micro_batch: int = 0) -> list[dict[str, Any]]:
    """Return what is known of each record of a micro-batch: key, timestep, the loss of each term, what it was made of.

    Args:
        forward: of the micro-batch.
        terms: names of the objective terms.
        rank: of this process.
        micro_batch: its number in the update, from 0.
    """

    def column(values: Tensor) -> list[Any]:
        return values.detach().double().tolist()

    losses = {f"objective[{k}].{name}": column(forward.losses[k]) for k, name in enumerate(terms)}
    read = {name: column(value) for name, value in forward.read.items()}
    timesteps = None if forward.timesteps is None else forward.timesteps.tolist()
    return [
        {
            "record": record,
            "visit": visit,
            "rank": rank,
            "micro_batch": micro_batch,
            "timestep": None if timesteps is None else timesteps[i],
            "finite": good,
            "losses": {name: values[i] for name, values in losses.items()},
            "read": {name: values[i] for name, values in read.items()},
        }
        for i, ((record, visit), good) in enumerate(zip(forward.keys, forward.finite.tolist(), strict=True))
    ]


class NonFiniteGuard:
    """Decides what becomes of a refused update, counts, and writes the report.

    Args:
        settings: raise or skip, and how many in a row.
        folder: of the run; ``nonfinite.json`` is written there. None writes nothing: a process that is not the main
            one, or a replay.
    """

    def __init__(self, settings: Guards, folder: Path | None) -> None:
        self.settings = settings
        self.path = None if folder is None else Path(folder) / "nonfinite.json"
        self.skipped = 0
        self.in_a_row = 0

    def state(self) -> dict[str, int]:
        """Return the counts, for the checkpoint."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state(self, state: Mapping[str, int]) -> None:
        """Put back what `state` returned."""
        self.skipped, self.in_a_row = int(state.get("skipped", 0)), int(state.get("in_a_row", 0))

    def passed(self) -> dict[str, float]:
        """Note an update that was applied; return what the log says."""
        self.in_a_row = 0
        return {"data/skipped": float(self.skipped)} if self.settings.nonfinite == "skip" else {}

    def refuse(self, refused: Refused, step: int) -> dict[str, float]:
        """Write the report of update ``step`` (from 0); under ``skip`` return what the log says.

        Raises:
            NonFiniteError: the policy is to stop, or too many updates in a row were refused.
        """
        self._report(refused, step)
        told = _sentence(refused, step)
        if self.settings.nonfinite == "raise":
            raise NonFiniteError(f"{told} See nonfinite.json; guards.nonfinite: skip leaves such updates out")
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row > self.settings.max_skips:
            raise NonFiniteError(
                f"{told} That is {self.in_a_row} in a row, more than guards.max_skips = {self.settings.max_skips};"
                " see nonfinite.json"
            )
        return {"data/skipped": float(self.skipped)}

    def _report(self, refused: Refused, step: int) -> None:
        if self.path is None:
            return
        # A resumed run writes again what comes after its checkpoint.
        before = read_json(self.path)["updates"] if self.path.exists() else []
        update = {
            "update": step + 1,
            "what": refused.what,
            "gradient_norm": refused.gradient_norm,
            "parameters": list(refused.parameters),
            "records": list(refused.records),
        }
        kept = [*(one for one in before if one["update"] <= step), json_safe(update)][-KEPT:]
        write_json(self.path, {"format": 1, "policy": self.settings.nonfinite, "updates": kept})


def _sentence(refused: Refused, step: int) -> str:
    if refused.what == "gradient":
        where = f" (in {len(refused.parameters)} tensors, first {refused.parameters[0]})" if refused.parameters else ""
        return f"update {step + 1}: the gradient's norm is {refused.gradient_norm}; nothing was changed{where}."
    bad = [f"{one['record']} (visit {one['visit']})" for one in refused.records if not one["finite"]]
    shown = ", ".join(bad[:SHOWN]) or "none alone, their sum"
    return f"update {step + 1}: the loss is not finite; nothing was changed. Records: {shown}."
