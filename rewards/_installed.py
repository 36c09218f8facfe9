"""Whether an optional package is there."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["is_installed"]


def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    try:
        return find_spec(package) is not None
    except ValueError:  # hidden, or half imported
        return False
