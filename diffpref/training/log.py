"""``metrics.jsonl``: one object a logged update. JSON keeps every bit of a float, so runs can be compared exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffpref.core.files import append_line, write_atomic

__all__ = ["MetricsLog", "read_metrics"]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a metrics file; a line that a kill cut short is left out."""
    if not Path(path).exists():
        return []
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(json.loads(line))
    return rows


class MetricsLog:
    """Appends to a run's metrics, after cutting what a resumed run will write again.

    Args:
        path: of ``metrics.jsonl``.
        step: updates that the checkpoint has; later lines are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = Path(path)
        kept = [row for row in read_metrics(self.path) if row["step"] <= step]
        write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def write(self, metrics: Mapping[str, float]) -> None:
        """Append one update. Non-finite values are refused: the guards stop the run before."""
        append_line(self.path, json.dumps(dict(metrics), allow_nan=False))
