"""Loading the model that a config names, and drawing with it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from diffpref.core.errors import ConfigError

if TYPE_CHECKING:
    from diffpref.config import Model
    from diffpref.models import DenoiserFamily
    from diffpref.sampling import Sampler, SamplerSettings

__all__ = ["fingerprint", "load_model", "make_sampler", "pick_device", "quiet_libraries"]


def pick_device(name: str | None) -> str:
    """Return a device that can be used: the named one, else this process's accelerator where there is one.

    Raises:
        ConfigError: torch knows no such device, or it is not there.
    """
    import torch

    if name is None:
        if not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device: '{name}' cannot be used ({str(error).splitlines()[0][:120]})") from error
    return name


def quiet_libraries() -> None:
    """Keep the loading bars of transformers and diffusers out of a standard error that nobody watches."""
    import diffusers
    import transformers

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
        diffusers.utils.logging.disable_progress_bar()


def load_model(model: Model, device: str) -> DenoiserFamily:
    """Load all parts of the model that a config names."""
    from diffpref.models import open_family
    from diffpref.models.attention import set_attention

    quiet_libraries()
    family = open_family(model)
    assert family.network is not None
    set_attention(family.network, model.attention)
    return family.to(device)


def make_sampler(family: DenoiserFamily, settings: SamplerSettings, precision: str) -> Sampler:
    """Return a sampler over a family's denoiser, in mixed precision where the config asks for it."""
    from diffpref.models.precision import autocast
    from diffpref.models.roles import NetworkRole
    from diffpref.sampling import Sampler

    assert family.network is not None
    device = next(family.network.parameters()).device
    role = NetworkRole(family, family.network, partial(autocast, precision, device))
    return Sampler(family, role, settings)


def fingerprint(family: DenoiserFamily, model: Model) -> str:
    """Return which model draws: family, path, and a digest of everything in it that decides a picture."""
    from diffpref.cache import component_digest

    assert family.network is not None and family.vae is not None
    weights = component_digest(family.network, family.vae, *(text.model for text in family.texts))
    tokenizers = [text.tokenizer.backend_tokenizer.to_str() for text in family.texts]
    settings = [dict(family.scheduler_config), family.zero_unconditional, model.precision]
    content = json.dumps([weights, tokenizers, settings], sort_keys=True, default=str)
    return f"{model.family} {model.path} {hashlib.blake2b(content.encode(), digest_size=6).hexdigest()}"
