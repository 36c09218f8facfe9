"""Faults on demand: a test arms one, and the n-th write that follows fails. Nothing is ever armed outside of tests.

`diffpref.core.files` passes here before each thing it asks of the file system, so that a test that raises n until no
fault fires has failed every write there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Failpoint", "fail_at", "reach"]


@dataclass
class Failpoint:
    """One armed fault.

    Args:
        n: which of the points that are passed fails, from 1.
        error: raised there, once.
        passed: what was passed so far: what was about to be done, and the name of the file.
    """

    n: int
    error: BaseException
    passed: list[str] = field(default_factory=list)

    @property
    def fired(self) -> bool:
        """Whether there were so many points."""
        return len(self.passed) >= self.n


_armed: list[Failpoint] = []


@contextmanager
def fail_at(n: int, error: BaseException) -> Iterator[Failpoint]:
    """Let the n-th point that is passed in the block raise ``error``; yields what tells whether it did."""
    failpoint = Failpoint(n, error)
    _armed.append(failpoint)
    try:
        yield failpoint
    finally:
        _armed.remove(failpoint)


def reach(action: str, path: Path) -> None:
    """Pass a point: about to do ``action`` with ``path``."""
    for failpoint in _armed:
        failpoint.passed.append(f"{action} {path.name}")
        if len(failpoint.passed) == failpoint.n:
            raise failpoint.error
