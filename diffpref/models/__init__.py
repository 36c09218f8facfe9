"""The outside world of networks: families, adapters, roles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffpref.core.registry import Registry

if TYPE_CHECKING:
    from diffpref.config import Model
    from diffpref.models.base import ModelFamily
    from diffpref.models.family import DenoiserFamily

__all__ = ["DenoiserFamily", "ModelFamily", "load_family", "open_family", "registry"]

registry: Registry[type[ModelFamily]] = Registry("family", "diffpref.models.families", lazy=True)


def load_family(name: str, path: str, **options: Any) -> Any:
    """Load a family's networks; the options are those of its ``load``.

    Args:
        name: registry name, such as ``"sdxl"``.
        path: a folder, a hub id, or ``bundled:shapes-sdxl``.

    Raises:
        ConfigError: unknown family.
        ModelError: nothing that can be loaded safely lies there.
    """
    return registry.get(name).load(path, **options)


def open_family(model: Model, *parts: str) -> Any:
    """Load the model that a config names.

    Args:
        model: the config's section.
        parts: of the family's, such as ``"network" "vae" "text"``; none named: all.

    Raises:
        ConfigError: unknown family.
        ModelError: nothing that can be loaded safely lies there.
    """
    family = load_family(
        model.family,
        model.path,
        **({"parts": parts} if parts else {}),
        precision=model.precision,
        revision=model.revision,
        variant=model.variant,
        allow_pickle=model.allow_pickle,
    )
    if model.max_sequence_length is not None:
        family.settle_length(model.max_sequence_length)
    return family


def __getattr__(name: str) -> Any:
    if name == "ModelFamily":
        from diffpref.models.base import ModelFamily

        return ModelFamily
    if name == "DenoiserFamily":  # imports torch and diffusers, which a name's check does not need
        from diffpref.models.family import DenoiserFamily

        return DenoiserFamily
    raise AttributeError(f"module 'diffpref.models' has no attribute '{name}'")
