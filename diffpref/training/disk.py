"""A disk that is full, or that cannot be written for another reason, told as one line: where, how much, what now."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from diffpref.core.errors import CheckpointError, DiskFullError

__all__ = ["writing"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def writing(target: Path, needed: int, intact: str) -> Iterator[None]:
    """Turn what the file system says in the block into an error of ours.

    Args:
        target: what is being written.
        needed: its size in bytes, roughly.
        intact: what is as it was before, for the message.

    Raises:
        DiskFullError: there is no room.
        CheckpointError: it cannot be written for another reason.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number, reason = _reason(error)
        if number not in FULL:
            raise CheckpointError(f"{target}: cannot be written ({reason}); {intact}") from error
        try:
            free = f", {shutil.disk_usage(target.parent).free:,} are free"
        except OSError:
            free = ""
        raise DiskFullError(
            f"{target}: no space left ({reason}): about {needed:,} bytes are needed{free}; {intact}"
        ) from error


def _reason(error: OSError | SafetensorError) -> tuple[int | None, str]:
    """Return the number and the text of what the system said; safetensors tells both in its text only."""
    if isinstance(error, OSError):
        return error.errno, error.strerror or str(error)
    found = re.search(r"\(os error (\d+)\)", str(error))
    return (int(found[1]), errno.errorcode.get(int(found[1]), found[0])) if found else (None, str(error))
