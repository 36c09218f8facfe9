"""The outside world of networks: families, adapters, roles."""

from __future__ import annotations

from diffpref.core.registry import Registry
from diffpref.models.family import DenoiserFamily

__all__ = ["DenoiserFamily", "load_family", "registry"]

registry: Registry[type[DenoiserFamily]] = Registry("family", "diffpref.models.families", lazy=True)


def load_family(name: str, path: str, **options: object) -> DenoiserFamily:
    """Load a family's networks; the options are those of `DenoiserFamily.load`.

    Args:
        name: registry name, such as ``"sdxl"``.
        path: a folder, a hub id, or ``bundled:shapes-sdxl``.

    Raises:
        ConfigError: unknown family.
        ModelError: nothing that can be loaded safely lies there.
    """
    return registry.get(name).load(path, **options)
