"""Loading the model that a config names, and drawing with it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from diffpref.core.errors import ConfigError

if TYPE_CHECKING:
    from diffpref.config import Model
    from diffpref.generation import GenerationRecipe
    from diffpref.generation.plan import Settings

__all__ = [
    "fingerprint",
    "load_model",
    "make_guided",
    "make_sampler",
    "pick_device",
    "quiet_libraries",
    "sampler_settings",
]


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


def load_model(model: Model, device: str, weights: str | None = None) -> Any:
    """Load all parts of the model that a config names.

    Args:
        model: the section of a recipe.
        device: where it is to lie.
        weights: what was trained of it, as a contender of an evaluation is named: a run's folder, with ``:ema`` its
            average; a LoRA; the folder of a denoiser. None: the model itself.

    Raises:
        CheckpointError: nothing that could take its place lies there, or a run without a result.
        ModelError: it cannot be loaded, or does not fit the model.
    """
    from diffpref.models import open_family
    from diffpref.models.attention import set_attention

    quiet_libraries()
    family: Any = open_family(model)
    if weights is not None:
        from diffpref.evaluation.contenders import parse_contenders
        from diffpref.evaluation.placing import place_contender

        (contender,) = parse_contenders([f"weights={weights}"])
        family = place_contender(contender, lambda: family)
    assert family.network is not None
    set_attention(family.network, model.attention)
    return family.to(device)


def sampler_settings(recipe: GenerationRecipe, family: Any) -> tuple[Settings, ...]:
    """Return how the candidates of a data set are drawn: pictures, clips or answers, as the family makes them."""
    return recipe.text_settings() if family.likelihood == "tokens" else recipe.settings(family)


def make_sampler(family: Any, settings: Settings, precision: str) -> Any:
    """Return a sampler over a family's network, in mixed precision where the config asks for it.

    Raises:
        ConfigError: the family's tokenizer has no end token, or lacks the chat template that is asked for.
    """
    from diffpref.sampling import Sampler, TextSampler, TextSettings

    assert family.network is not None
    if isinstance(settings, TextSettings):
        return TextSampler(family.network, family.tokenizer, settings)
    return Sampler(family, _role(family, precision), settings)


def make_guided(recipe: GenerationRecipe, device: str) -> tuple[Any, Any, Any]:
    """Open what a recipe's candidates are drawn from; return the plan, the records, and what draws.

    Raises:
        ConfigError: the family makes texts, or the recipe asks for frames that it does not make.
        DataError: the source cannot be read, or too much of it is no ground truth of the family.
    """
    from diffpref.data import open_records, usable_records
    from diffpref.data.clips import check_clip, check_picture
    from diffpref.data.views import ClipCut
    from diffpref.generation import GuidedPlan, ground_truths
    from diffpref.sampling import SdeditSampler

    assert recipe.model is not None and recipe.ground_truth is not None
    opened = open_records(recipe.ground_truth)
    family = load_model(recipe.model, device)
    if family.likelihood != "denoising":
        raise ConfigError(f"ground_truth: '{family.name}' makes no pictures or clips; give prompts")
    (settings,) = recipe.settings(family)
    frames = settings.num_frames
    check = check_picture if frames is None else check_clip(ClipCut(frames, fps=recipe.fps))
    records = usable_records(opened, check=check)
    plan = GuidedPlan(
        truths=ground_truths(records),
        candidates=recipe.candidates,
        seed=recipe.seed,
        settings=settings,
        strengths=(float(recipe.strengths[0]), float(recipe.strengths[1])),
        beginning=recipe.beginning,
        fps=recipe.fps,
        generator=fingerprint(family, recipe.model),
        unit_size=recipe.unit_size,
    )
    role = _role(family, recipe.model.precision)
    return plan, records, SdeditSampler(family, role, settings, recipe.beginning)


def _role(family: Any, precision: str) -> Any:
    """Return a family's network as a role, in mixed precision where the config asks for it."""
    from diffpref.models.precision import autocast
    from diffpref.models.roles import NetworkRole

    device = next(family.network.parameters()).device
    return NetworkRole(family, family.network, partial(autocast, precision, device))


def fingerprint(family: Any, model: Model, trained: str | None = None) -> str:
    """Return which model draws: family, path, and a digest of everything in it that decides what it draws.

    Args:
        family: the model, loaded.
        model: the section of a recipe.
        trained: the weights that `load_model` has put into it.
    """
    from diffpref.cache import component_digest

    if family.likelihood == "tokens":
        weights = component_digest(family.network)
        tokenizers = [family.tokenizer.backend_tokenizer.to_str()]
        settings = [family.tokenizer.chat_template, family.tokenizer.eos_token, model.precision]
    else:
        weights = component_digest(family.network, family.vae, *(text.model for text in family.texts))
        tokenizers = [text.tokenizer.backend_tokenizer.to_str() for text in family.texts]
        settings = [dict(family.scheduler_config), family.zero_unconditional, model.precision]
    if trained is not None:  # by what a LoRA is multiplied, its weights do not say
        scales = ((layer, getattr(module, "scaling", None)) for layer, module in family.network.named_modules())
        settings.append([(layer, *scale.items()) for layer, scale in scales if isinstance(scale, dict)])
    content = json.dumps([weights, tokenizers, settings], sort_keys=True, default=str)
    return f"{model.family} {model.path} {hashlib.blake2b(content.encode(), digest_size=6).hexdigest()}"
