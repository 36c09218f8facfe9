"""Where the bundled models lie: ``bundled:shapes-sdxl`` is the folder ``diffpref/assets/shapes/sdxl``."""

from __future__ import annotations

from pathlib import Path

from diffpref.core.errors import ModelError, suggest

__all__ = ["ASSETS", "PREFIX", "bundled", "resolve"]

ASSETS = Path(__file__).resolve().parents[1] / "assets"
PREFIX = "bundled:"


def bundled() -> list[str]:
    """Return what is bundled, such as ``["shapes-clip", "shapes-sdxl"]``."""
    return sorted(
        f"{world.name}-{model.name}"
        for world in (ASSETS.iterdir() if ASSETS.is_dir() else ())
        if world.is_dir()
        for model in world.iterdir()
        if model.is_dir()
    )


def resolve(path: str) -> str:
    """Turn ``bundled:<world>-<model>`` into its folder; a hub id or a folder is returned as it is.

    Raises:
        ModelError: nothing of that name is bundled; the message lists what is.
    """
    if not path.startswith(PREFIX):
        return path
    name = path.removeprefix(PREFIX)
    known = bundled()
    if name not in known:
        listed = ", ".join(known) or "nothing"
        raise ModelError(f"unknown bundled model '{name}'{suggest(name, known) or ';'} bundled: {listed}")
    world, model = name.split("-", 1)
    return str(ASSETS / world / model)
