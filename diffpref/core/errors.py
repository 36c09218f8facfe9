"""Errors that a user can act on: what was given, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DiffprefError",
    "DiskFullError",
    "FrozenRoleError",
    "Interrupted",
    "ModelError",
    "NewerFormatError",
    "NonFiniteError",
    "ShapeError",
    "suggest",
]


class DiffprefError(Exception):
    """Base of every error that is the caller's to mend; the command line prints it as one line."""

    exit_code = 2


class ConfigError(DiffprefError, ValueError):
    """A name or a value in a config, a recipe or a call is not usable."""


class ShapeError(DiffprefError, ValueError):
    """Tensors do not have the shapes that their names promise."""


class DataError(DiffprefError):
    """Records, images or stores cannot be read or are too few."""


class ModelError(DiffprefError):
    """A folder or hub id does not hold a model that can be loaded safely."""


class CheckpointError(DiffprefError):
    """A checkpoint is incomplete or does not fit the run."""


class DiskFullError(CheckpointError):
    """There is no room for a checkpoint. Nothing that was there was touched."""


class Interrupted(DiffprefError):
    """A signal stopped the run, after all was saved.

    Args:
        message: where it was saved; empty on processes that have nothing to add.
        signal: its number.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class NewerFormatError(CheckpointError):
    """A checkpoint was written by a later version; it is no damage, so nothing older is taken instead."""


class FrozenRoleError(DiffprefError):
    """A role that must not change did; what was trained against it means nothing."""


class NonFiniteError(DiffprefError):
    """A loss or a gradient is NaN or infinite; the parameters were not touched."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or ``""`` when none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
