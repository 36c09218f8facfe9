"""A finished run against the base that it started from: same prompts, same seeds, same sampler."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from safetensors import SafetensorError

from diffpref.config import Recipe, load_recipe
from diffpref.core.contracts import Reward
from diffpref.core.errors import CheckpointError, ConfigError, DataError, ModelError
from diffpref.core.randomness import hash_key
from diffpref.evaluation.compare import Facts, compare
from diffpref.evaluation.results import Comparison
from diffpref.models import DenoiserFamily, ModelFamily
from diffpref.models.loading import freeze

__all__ = ["Evaluation", "Sample", "apply_result", "evaluate_run", "evaluation_pairs", "open_run", "result_folder"]

Sample: TypeAlias = Callable[[Sequence[str], Sequence[int]], Sequence[np.ndarray]]
"""Prompts and seeds to (H, W, 3) uint8 pictures."""


@dataclass(frozen=True)
class Evaluation:
    """What a comparison found, and the pictures that it looked at.

    Args:
        comparison: of base and aligned model.
        base_images: of the base model, in the order of ``comparison.items``.
        aligned_images: of the aligned model.
        seconds: stage -> wall-clock seconds.
    """

    comparison: Comparison
    base_images: Sequence[np.ndarray]
    aligned_images: Sequence[np.ndarray]
    seconds: Mapping[str, float]


def open_run(folder: Path | str) -> Recipe:
    """Return the recipe of a run that has a result.

    Raises:
        CheckpointError: the folder is no run, or its training has not ended.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        hint = "has no config.yaml" if folder.is_dir() else "no such folder"
        raise CheckpointError(f"{folder} is not a run: {hint}")
    result_folder(folder)
    return load_recipe(folder / "config.yaml")


def result_folder(run: Path, *, ema: bool = False) -> Path:
    """Return where the result of a run lies: ``lora`` or ``model``, with ``ema`` the average's.

    Raises:
        CheckpointError: it is not there.
    """
    for name in ("lora_ema", "model_ema") if ema else ("lora", "model"):
        if (run / name).is_dir():
            return run / name
    if ema:
        raise CheckpointError(f"{run} has no averaged result: neither lora_ema/ nor model_ema/ is there")
    raise CheckpointError(f"{run} has no result yet: neither lora/ nor model/ is there; finish its training first")


def apply_result(family: ModelFamily, folder: Path | str, *, ema: bool = False) -> None:
    """Put what a run has trained into a family that holds the run's base, as the libraries do.

    Args:
        family: with all its parts, fresh from its path.
        folder: of the run.
        ema: take the average of ``training.ema`` instead of the last weights.

    Raises:
        CheckpointError: the run has no such result, or one that does not fit the family.
    """
    folder = Path(folder)
    if family.network is None:
        raise ConfigError("the family's 'network' is not loaded; load it with parts=(..., 'network')")
    kind = result_folder(folder, ema=ema).name
    try:
        family.apply(str(folder / kind), kind.startswith("lora"))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, ModelError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{folder / kind}: cannot be loaded into {family.path} ({reason})") from error
    freeze(family.network)


def evaluation_pairs(prompts: Sequence[str], num_seeds: int = 1, seed: int = 0) -> tuple[list[str], list[int]]:
    """Return prompts and seeds of the pictures to draw, ``num_seeds`` for each prompt.

    A seed is a function of the prompt, so that the pairs of different prompts are independent draws; none of them is
    a seed of generation.

    Raises:
        DataError: no prompts, or one twice, which would be the same picture.
        ConfigError: ``num_seeds`` is below 1.
    """
    if num_seeds < 1:
        raise ConfigError(f"seeds: must be at least 1, got {num_seeds}")
    if not prompts:
        raise DataError("there are no prompts to evaluate")
    if len(set(prompts)) != len(prompts):
        twice = next(prompt for i, prompt in enumerate(prompts) if prompt in prompts[:i])
        raise DataError(f"the prompt {twice!r} appears more than once; ask for more seeds instead")
    keys = [(prompt, number) for prompt in prompts for number in range(num_seeds)]
    return [prompt for prompt, _ in keys], [hash_key(seed, "evaluation", *key) % 2**32 for key in keys]


def evaluate_run(
    folder: Path | str,
    family: DenoiserFamily,
    make_sampler: Callable[[DenoiserFamily], Sample],
    prompts: Sequence[str],
    judges: Mapping[str, Reward],
    facts: Facts | None = None,
    *,
    num_seeds: int = 1,
    seed: int = 0,
    on_stage: Callable[[str], None] | None = None,
) -> Evaluation:
    """Draw with the base, put the run's result in its place, draw again, and compare.

    Args:
        folder: of the run.
        family: the run's base, complete; afterwards its denoiser is the aligned one.
        make_sampler: makes a sampler over the family's denoiser as it is; called once a side.
        prompts: different texts. Captions that gave training pairs say little.
        judges: name -> reward. At least one should not have labelled the training data.
        facts: ground truth, where the world has one.
        num_seeds: pictures of each prompt.
        seed: of the evaluation; see `evaluation_pairs`.
        on_stage: told what begins: ``"base"``, ``"aligned"``, ``"judges"``.

    Raises:
        CheckpointError: the run has no result, or one that does not fit the family.
        DataError: no prompts, or nobody to judge.
    """
    texts, seeds = evaluation_pairs(prompts, num_seeds, seed)
    if not judges and facts is None:
        raise DataError("nobody judges: name at least one reward")
    seconds: dict[str, float] = {}
    images: list[Sequence[np.ndarray]] = []
    tell = on_stage or (lambda stage: None)
    for stage in ("base", "aligned"):
        tell(stage)
        start = time.perf_counter()
        if stage == "aligned":
            apply_result(family, folder)
        images.append(make_sampler(family)(texts, seeds))
        seconds[stage] = time.perf_counter() - start
    tell("judges")
    start = time.perf_counter()
    comparison = compare(texts, seeds, images[0], images[1], judges, facts, seed=seed)
    seconds["judges"] = time.perf_counter() - start
    return Evaluation(comparison, images[0], images[1], seconds)
