"""One round from a base model to an aligned one: generate, score, train, evaluate, report. Resumable at every point."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from diffpref import rewards
from diffpref.config import Named, dump_yaml
from diffpref.core.contracts import Reward
from diffpref.core.errors import DataError
from diffpref.core.randomness import hash_key
from diffpref.evaluation import Comparison, compare
from diffpref.evaluation.provenance import Provenance
from diffpref.evaluation.report import write_report
from diffpref.generation import GenerationPlan, generate, load_prompts
from diffpref.loops.recipe import AlignmentRecipe
from diffpref.models import DenoiserFamily, load_family
from diffpref.models.roles import NetworkRole
from diffpref.sampling import Sampler
from diffpref.shapes.grammar import Caption
from diffpref.shapes.oracle import facts
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

__all__ = ["align"]

logger = logging.getLogger(__name__)


class _Clock:
    """Seconds of each stage, in the order in which they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 1)
        logger.info("%s: %.0f s", name, self.seconds[name])


def align(recipe: AlignmentRecipe) -> Comparison:
    """Run a round and return the comparison of base and aligned model.

    Written into ``recipe.output``: ``data/`` (the scored store), ``run/`` (the training run with its LoRA or model),
    ``report.html``, ``grid.png`` and ``results.json``. What an interrupted round has done is not done again.

    Raises:
        DataError: a caption of the evaluation gave a training pair.
    """
    output, clock = Path(recipe.output), _Clock()
    prompts = load_prompts(recipe.generation.prompts)
    judged = load_prompts(recipe.evaluation.prompts)
    if both := set(prompts) & set(judged):
        raise DataError(f"evaluation.prompts: {len(both)} captions are also trained on, such as {sorted(both)[0]!r}")
    model = recipe.model
    family = load_family(
        model.family, model.path, precision=model.precision, revision=model.revision, variant=model.variant,
        allow_pickle=model.allow_pickle,
    ).to("cuda" if torch.cuda.is_available() else "cpu")  # fmt: skip
    how = recipe.generation.settings(family.native_resolution())
    base = [Sampler(family, NetworkRole(family, family.network), settings) for settings in how]
    with clock.stage("generate and score"):
        plan = GenerationPlan(
            tuple(prompts), recipe.generation.candidates, recipe.seed, how, model.path, recipe.generation.unit_size
        )
        scorers = _load_rewards(recipe.generation.rewards)
        generate(plan, dict(zip(how, base, strict=True)), recipe.generation.output, scorers=scorers)
    with clock.stage("train"):
        trainer = Trainer(recipe.training)
        trainer.fit()
    with clock.stage("evaluate"):
        pairs = [(p, hash_key(recipe.seed, "evaluation", p, n)) for p in judged for n in range(recipe.evaluation.seeds)]
        texts, seeds = [p for p, _ in pairs], [s for _, s in pairs]
        base_pictures = base[0](texts, seeds)
        aligned = Sampler(replace(family, network=trainer.family.network), trainer.roles["policy"], how[0])
        aligned_pictures = aligned(texts, seeds)
        comparison = compare(
            texts, seeds, base_pictures, aligned_pictures, _load_rewards(recipe.evaluation.judges), _facts_of(judged)
        )
    _report(recipe, output, comparison, base_pictures, aligned_pictures, clock.seconds, trainer)
    return comparison


def _load_rewards(named: Sequence[Named]) -> dict[str, Reward]:
    return {one.name: rewards.load(one.name, **one.options) for one in named}


def _facts_of(prompts: Sequence[str]) -> object:
    """The oracle, where every prompt is a caption of the shapes world."""
    try:
        known = {prompt: Caption.parse(prompt) for prompt in prompts}
    except DataError:
        return None
    return lambda picture, prompt: facts(picture, known[prompt])


def _report(
    recipe: AlignmentRecipe,
    output: Path,
    comparison: Comparison,
    base: Sequence[np.ndarray],
    aligned: Sequence[np.ndarray],
    seconds: Mapping[str, float],
    trainer: Trainer,
) -> None:
    counts = {
        "training prompts": len(load_prompts(recipe.generation.prompts)),
        "candidates of each": recipe.generation.candidates,
        "pairs": len(trainer.batches.pairs),
        "updates": trainer.step,
        "pairs an update": trainer.records_per_update,
        "judged prompt-seed pairs": len(base),
    }
    provenance = Provenance(
        command=" ".join(["diffpref", *sys.argv[1:]]),
        config=dump_yaml(recipe.model_dump(mode="json")),
        seeds={"all stages": recipe.seed},
        counts=counts,
        seconds=seconds,
    )
    write_report(
        output,
        comparison,
        base,
        aligned,
        title=f"{recipe.model.path} aligned with {recipe.training.method.name}",
        metrics=read_metrics(output / "run" / "metrics.jsonl"),
        provenance=provenance,
    )
