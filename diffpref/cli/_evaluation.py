"""What `diffpref evaluate` makes of its words: the base, how it draws, and what is asked of everyone."""

from __future__ import annotations

import hashlib
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpref.core.errors import ConfigError

if TYPE_CHECKING:
    from diffpref.config import Model, Recipe
    from diffpref.evaluation.contenders import Contender
    from diffpref.evaluation.plan import EvaluationPlan
    from diffpref.evaluation.prompt_sets import PromptSet
    from diffpref.sampling import SamplerSettings

__all__ = ["base_model", "denoiser_part", "make_plan", "output_folder", "read_prompts", "sampler_settings"]


def base_model(base: str | None, family: str | None, recipe: Recipe | None) -> Model:
    """Return the model that all start from: ``--base``, else that of the first run.

    Raises:
        ConfigError: neither is given, or the model draws neither pictures nor clips from prompts.
    """
    from diffpref.config import Model
    from diffpref.models import registry

    if base is None:
        if recipe is None:
            raise ConfigError("--base: must be given, with --family, where no contender is a run of diffpref")
        model = recipe.model
    else:
        told = recipe.model.model_dump() if recipe else {}
        family = family or told.get("family")
        if family is None:
            raise ConfigError(f"--family: must be given with --base; known: {', '.join(registry.names())}")
        model = Model.model_validate({**told, "path": base, "family": family})
    kind: Any = registry.get(model.family)
    if kind.likelihood == "denoising" and kind.takes_opening:
        raise ConfigError(f"the family '{model.family}' animates pictures, and diffpref evaluate has prompts only")
    if kind.likelihood != "denoising":
        raise ConfigError(
            f"the family '{model.family}' draws no pictures and no clips; diffpref evaluate compares models that do"
        )
    return model


def denoiser_part(model: Model) -> str:
    """Return what the model's family calls its denoiser, and its folder: ``unet`` or ``transformer``."""
    from diffpref.models import registry

    family: Any = registry.get(model.family)
    return str(family.network_part)


def sampler_settings(given: Namespace, recipe: Recipe | None, model: Model) -> SamplerSettings:
    """Return how everyone draws: as told, else as the first run's validation does.

    Raises:
        ConfigError: frames of pictures, or more than the family takes.
    """
    from diffpref.config import Validation
    from diffpref.models import open_family
    from diffpref.sampling import SamplerSettings

    told = recipe.validation if recipe else Validation()
    resolution = given.resolution or (recipe.data.resolution if recipe else None)
    return SamplerSettings(
        num_inference_steps=given.num_inference_steps or told.num_inference_steps,
        guidance_scale=told.guidance_scale if given.guidance_scale is None else given.guidance_scale,
        solver=given.solver,
        resolution=resolution,
        batch_size=given.batch_size,
        num_frames=given.num_frames or (recipe.data.num_frames if recipe else None),
        fps=given.fps or (recipe.data.fps if recipe else None),
    ).settled(open_family(model, "vae"))


def read_prompts(words: Sequence[str]) -> PromptSet:
    """Return the prompts, each once: one word names a set, several are the prompts themselves."""
    from diffpref.data import load_prompts
    from diffpref.evaluation.prompt_sets import PromptSet, load_prompt_set

    if len(words) == 1:
        return load_prompt_set(words[0]).unique()
    prompts = tuple(load_prompts(words))
    digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    return PromptSet("given one by one", digest, prompts).unique()


def make_plan(
    given: Namespace, found: PromptSet, model: Model, settings: SamplerSettings, digest: str, device: str
) -> EvaluationPlan:
    """Return what decides every picture.

    Args:
        given: the command line.
        found: the prompts.
        model: the base.
        settings: how everyone draws.
        digest: of the base's weights.
        device: where.
    """
    from diffpref.core.assets import resolve
    from diffpref.evaluation.plan import EvaluationPlan, evaluation_pairs
    from diffpref.evaluation.published import architecture_of
    from diffpref.models.loading import load_settings

    def repeated(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(value for value in values for _ in range(given.seeds))

    texts, seeds = evaluation_pairs(found.prompts, given.seeds, given.seed)
    network = load_settings(resolve(model.path), denoiser_part(model), "config.json", revision=model.revision)
    return EvaluationPlan(
        tuple(texts),
        tuple(seeds),
        {axis: repeated(labels) for axis, labels in found.categories.items()},
        repeated(found.metadata or ()),
        base={
            "family": model.family,
            "architecture": architecture_of(network),
            "weights": digest,
            "precision": model.precision,
            "variant": model.variant,
        },
        sampler={**asdict(settings), "device": device.partition(":")[0]},
        prompt_set={"name": found.name, "sha256": found.sha256, "count": len(found)},
        seed=given.seed,
    )


def output_folder(output: str | None, contenders: Sequence[Contender]) -> Path:
    """Return the folder of the evaluation: as told, else beside the first contender's results.

    Raises:
        ConfigError: it is not told, and the first contender is no run.
    """
    if output:
        return Path(output)
    if contenders[0].kind != "run":
        raise ConfigError("--output: must be given where the first contender is no run")
    return Path(contenders[0].path) / "evaluation"
