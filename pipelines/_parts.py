"""The components of a diffusers pipeline as a family, through which `diffpref.sampling` asks the denoiser."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from diffpref.core.contracts import Conditioning
from diffpref.core.errors import ConfigError, ModelError
from diffpref.models import registry
from diffpref.models.family import DenoiserFamily, TextEncoder

__all__ = ["checked_side", "conditioning_of", "family_of", "float32_vae", "owners_of"]

ZEROS = "force_zeros_for_empty_prompt"


def family_of(pipe: Any, names: Sequence[str]) -> DenoiserFamily:
    """Return the components as the first family of these names that they make; nothing is copied.

    Args:
        pipe: a pipeline with the components' names of diffusers.
        names: of families.

    Raises:
        ConfigError: the denoiser, the text encoders or the scheduler are of none of them.
    """
    network = getattr(pipe, "transformer", None) or pipe.unet
    if network is None:
        raise ConfigError("the pipeline has no denoiser; give it a unet or a transformer")
    config = {**network.config, "_class_name": type(network).__name__}
    for name in names:
        kind: Any = registry.get(name)
        try:
            kind.check("the pipeline", config)
        except ModelError:
            continue
        scheduler = {**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__}
        zeros = ZEROS in inspect.signature(kind.pipeline_class).parameters
        return kind(
            "the pipeline",
            kind.read_schedule(scheduler),
            scheduler,
            network,
            pipe.vae,
            tuple(_texts(pipe, kind)),
            config=dict(network.config),
            settings={ZEROS: pipe.config[ZEROS]} if zeros and ZEROS in pipe.config else {},
        )
    raise ConfigError(f"a {type(network).__name__} of this kind is no denoiser of {', '.join(names)}")


def _texts(pipe: Any, kind: Any) -> Iterator[TextEncoder]:
    for part in kind.text_parts:
        model = getattr(pipe, part, None)
        if model is not None:
            yield TextEncoder(getattr(pipe, part.replace("text_encoder", "tokenizer")), model)
        elif part not in kind.optional_texts:
            raise ConfigError(f"the pipeline has no {part}, which '{kind.name}' needs")


@contextmanager
def float32_vae(family: DenoiserFamily) -> Iterator[None]:
    """Keep the VAE in float32 for a while: some overflow in half precision, and families take it to be so."""
    assert family.vae is not None
    dtype = family.vae.dtype
    if dtype == torch.float32:  # diffusers warns of every cast
        yield
        return
    family.vae.to(torch.float32)
    try:
        yield
    finally:
        family.vae.to(dtype)


def conditioning_of(
    family: DenoiserFamily, prompts: str | Sequence[str], negative: str | None, count: int, side: int, device: Any
) -> tuple[Conditioning, Conditioning]:
    """Return what the denoiser is told, a row each, and the row that guidance leads away from.

    Raises:
        ConfigError: not as many prompts as media.
    """
    texts = [prompts] * count if isinstance(prompts, str) else list(prompts)
    if len(texts) != count or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"prompt: must be a text, or a list of {count}, one for each that is given, got {prompts!r}")
    without = family.unconditional(side) if negative is None else family.encode_prompt([negative], side)
    return family.encode_prompt(texts, side).to(device), without.to(device)


def checked_side(family: DenoiserFamily, pixels: Tensor) -> int:
    """Return the side of square pictures or frames (..., H, W).

    Raises:
        ConfigError: they are not square, or of a side that the latents cannot have.
    """
    height, width = pixels.shape[-2:]
    step = family.vae_factor() * int(family.config.get("patch_size") or 1)
    if height != width or height % step:
        raise ConfigError(
            f"squares of a multiple of {step} pixels are needed, got {height} x {width}; crop, or give height and width"
        )
    return int(height)


def owners_of(generator: Any, count: int) -> list[torch.Generator | None]:
    """Return whose numbers each row takes: one generator for all, in their order, or one each.

    Raises:
        ConfigError: neither a generator, nor as many as rows.
    """
    if isinstance(generator, list | tuple):
        if len(generator) != count or not all(isinstance(one, torch.Generator) for one in generator):
            raise ConfigError(f"generator: must be a torch.Generator or a list of {count}, got {len(generator)} things")
        return list(generator)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ConfigError(f"generator: must be a torch.Generator or a list of {count}, got {type(generator).__name__}")
    return [generator] * count
