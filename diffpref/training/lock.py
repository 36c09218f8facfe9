"""One run, one output folder: a lock that names its process, and that dies with it.

The kernel holds the lock, so a process that was killed leaves none; what it leaves is the file, which says who it was.
Where the file system knows no locks, the process id and the host decide.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from pathlib import Path
from typing import Any

from diffpref.core.errors import ConfigError

__all__ = ["LOCK", "OutputLock"]

logger = logging.getLogger(__name__)

LOCK = ".lock"
NOT_SUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)

_held: dict[Path, int] = {}
"""Locks belong to the process, not to an object in it: closing any descriptor of the file would drop them."""


class OutputLock:
    """The right to write to a run's folder. Taking it makes the folder.

    A process may take a lock that it holds already: a notebook begins again in the same folder.

    Args:
        folder: of the run.

    Raises:
        ConfigError: another process has it, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._made = not self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.path = self.folder.resolve() / LOCK
            if self.path not in _held:
                _held[self.path] = self._take()
        except OSError as error:
            raise ConfigError(f"output: {folder} cannot be written ({error.strerror or error})") from error

    def _take(self) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                before = self._try(descriptor)
                if _is_at(descriptor, self.path):  # else its owner removed it between the two lines
                    break
                os.close(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        if before:
            logger.info("output: process %s on %s left its lock behind; it is gone", before["pid"], before["host"])
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        os.fsync(descriptor)
        return descriptor

    def _try(self, descriptor: int) -> dict[str, Any] | None:
        """Take the lock; return who had it before and did not give it back."""
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _owner(descriptor)
            if error.errno in NOT_SUPPORTED:
                if owner is None or _is_gone(owner):
                    return owner
            elif error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            told = f"by process {owner['pid']} on {owner['host']}" if owner else "by another process"
            hint = f"; if that is gone, remove {self.path}" if error.errno in NOT_SUPPORTED else ""
            raise ConfigError(
                f"output: {self.folder} is in use {told}; wait for it, or choose another folder{hint}"
            ) from error
        return _owner(descriptor)

    def release(self) -> None:
        """Give the lock back, and remove the folder if nothing was put into it."""
        descriptor = _held.pop(self.path, None)
        if descriptor is None:
            return
        self.path.unlink(missing_ok=True)
        os.close(descriptor)
        if self._made and not any(self.folder.iterdir()):
            self.folder.rmdir()


def _owner(descriptor: int) -> dict[str, Any] | None:
    try:
        said = json.loads(os.pread(descriptor, 4096, 0))
        return {"pid": int(said["pid"]), "host": str(said["host"])}
    except (ValueError, KeyError, TypeError):  # empty, or cut by a kill
        return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _is_gone(owner: dict[str, Any]) -> bool:
    """Whether a process of this machine has ended; of another machine nobody knows."""
    if owner["host"] != socket.gethostname():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
