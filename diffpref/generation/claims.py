"""Who makes which unit of work: claims that several processes on one folder respect, without a scheduler.

A claim is a locked file that holds the process's id and host. The kernel lets go of the lock when its process ends,
however it ends, so that the claim of a dead process is free at once and no two processes can take it over.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Claims", "share_of_work"]

logger = logging.getLogger(__name__)


def share_of_work() -> tuple[int, int]:
    """Return this process's number and how many there are, as ``accelerate launch`` and ``torchrun`` tell it."""
    return int(os.environ.get("RANK", "0")), max(1, int(os.environ.get("WORLD_SIZE", "1")))


class Claims:
    """The claims on the units of one folder.

    Args:
        folder: where they lie; made with the first claim.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._can_lock = True

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    @contextmanager
    def take(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Claim a unit for the length of a ``with`` block; yields whether it is ours.

        Args:
            name: of the unit.
            wait: until the process that holds it lets go.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(self._path(name), os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the folder was removed by a process that saw everything done
            yield False
            return
        try:
            ours = self._lock(descriptor, wait)
            if ours:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f'{{"pid": {os.getpid()}, "host": "{socket.gethostname()}"}}\n'.encode())
            yield ours
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int, wait: bool) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError as error:
            if self._can_lock:
                logger.warning(
                    "%s: this file system has no locks (%s); several processes may make the same part twice",
                    self.folder,
                    error.strerror,
                )
            self._can_lock = False
        return True

    def holder(self, name: str) -> str:
        """Return who holds a claim, for a message."""
        try:
            return self._path(name).read_text().strip()
        except OSError:
            return "nobody"

    def remove(self) -> None:
        """Remove all claims: there is nothing left to do."""
        shutil.rmtree(self.folder, ignore_errors=True)
