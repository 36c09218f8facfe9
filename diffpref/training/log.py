"""``metrics.jsonl``: one object a logged update. JSON keeps every bit of a float, so runs can be compared exactly."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffpref.core.errors import CheckpointError, DiskFullError
from diffpref.core.files import append_line, write_atomic
from diffpref.training.disk import writing

__all__ = ["MetricsLog", "read_metrics"]

logger = logging.getLogger(__name__)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a metrics file; a line that a kill cut short is left out.

    Raises:
        CheckpointError: a complete line is not one of ours.
    """
    if not Path(path).exists():
        return []
    rows = []
    lines = Path(path).read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if line.endswith(b"\n"):
            try:
                row = json.loads(line)
                rows.append({**row, "step": int(row["step"])})
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{path}, line {number}: damaged; remove it to go on") from error
    return rows


class MetricsLog:
    """Appends to a run's metrics, after cutting what a resumed run will write again.

    Args:
        path: of ``metrics.jsonl``.
        step: updates that the checkpoint has; later lines are dropped.
        on_full_disk: ``"raise"``, or ``"warn"`` and write the line with a later one.
    """

    def __init__(self, path: Path, step: int, on_full_disk: str = "raise") -> None:
        self.path, self.on_full_disk = Path(path), on_full_disk
        self._waiting: list[str] = []
        kept = [row for row in read_metrics(self.path) if row["step"] <= step]
        write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def write(self, metrics: Mapping[str, float]) -> None:
        """Append one update. Non-finite values are refused: the guards stop the run before."""
        self._waiting.append(json.dumps(dict(metrics), allow_nan=False))
        try:
            self.flush()
        except DiskFullError as error:
            if self.on_full_disk == "raise":
                raise
            if len(self._waiting) == 1:
                logger.warning("%s; lines wait for room", error)

    def flush(self) -> None:
        """Write the lines that wait.

        Raises:
            DiskFullError: there is no room for them.
        """
        if self._waiting:
            lines = "\n".join(self._waiting)
            with writing(self.path, len(lines) + 1, "what was logged before is whole"):
                append_line(self.path, lines)
            self._waiting.clear()
