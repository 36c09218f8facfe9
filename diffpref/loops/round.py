"""One round from a base model to an aligned one: generate, score, train, evaluate, report. Resumable at every point."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffpref.config import dump_yaml
from diffpref.core.errors import DataError
from diffpref.data import read_store, score_rows
from diffpref.evaluation.provenance import Provenance
from diffpref.evaluation.report import kept_pictures, write_report
from diffpref.evaluation.results import Comparison
from diffpref.evaluation.run import Evaluation, evaluate_run
from diffpref.generation import GenerationPlan, generate, load_prompts
from diffpref.loops.judging import check_scorers, judges_and_facts, load_rewards
from diffpref.loops.opening import fingerprint, load_model, make_sampler, pick_device, sampler_settings
from diffpref.loops.recipe import AlignmentRecipe
from diffpref.ranking import Agreement, agreement
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
        logger.info("%s ...", name)
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 1)
        logger.info("%s: %.0f s", name, self.seconds[name])


def align(recipe: AlignmentRecipe, command: str = "") -> Comparison:
    """Run a round and return the comparison of base and aligned model.

    Written into ``recipe.output``: ``data/`` (the scored store), ``run/`` (the training run with its LoRA or model),
    ``report.html``, ``grid.png`` and ``results.json``. What an interrupted round has done is not done again.

    Args:
        recipe: what to do.
        command: what was typed, for the report.

    Raises:
        DataError: a caption of the evaluation is also trained on.
    """
    clock = _Clock()
    assert recipe.generation.prompts is not None
    prompts = load_prompts(recipe.generation.prompts)
    judged = load_prompts(recipe.evaluation.prompts)
    if both := set(prompts) & set(judged):
        raise DataError(f"evaluation.prompts: {len(both)} captions are also trained on, such as {sorted(both)[0]!r}")
    device = pick_device(None)
    family = load_model(recipe.model, device)
    how = sampler_settings(recipe.generation, family)
    scorers = load_rewards(recipe.generation.rewards, device)
    judges, facts = judges_and_facts(recipe.evaluation.judges, device)
    for named in (scorers, judges):
        check_scorers(named, recipe.model.family)
    with clock.stage("generate and score"):
        plan = GenerationPlan(
            prompts=tuple(prompts),
            candidates=recipe.generation.candidates,
            seed=recipe.generation.seed,
            settings=how,
            generator=fingerprint(family, recipe.model),
            unit_size=recipe.generation.unit_size,
        )
        samplers = {one: make_sampler(family, one, recipe.model.precision) for one in how}
        generate(
            plan,
            samplers,
            recipe.generation.output,
            scorers=scorers,
            max_unusable=recipe.generation.max_unusable,
        )
    with clock.stage("train"):
        trainer = Trainer(recipe.training)
        trainer.fit()
    with clock.stage("evaluate"):
        found = evaluate_run(
            recipe.training.output,
            family,
            lambda family: make_sampler(family, how[0], recipe.model.precision),
            judged,
            judges,
            facts,
            num_seeds=recipe.evaluation.seeds,
            seed=recipe.seed,
            setting={
                "base": {"family": recipe.model.family, "path": recipe.model.path},
                "sampler": str(how[0]),
                "prompts": {"name": _told(recipe.evaluation.prompts), "count": len(judged)},
                **({"media": "clips"} if family.samples == "videos" else {}),
            },
        )
    _report(recipe, command, found, clock, trainer, len(prompts))
    return found.comparison


def _agreement(folder: str) -> Agreement | None:
    """Return how far the scores of the candidates agree; None where there are fewer than two."""
    rows = score_rows(read_store(folder, verify="counts"))
    return agreement(rows) if len(rows) > 1 else None


def _told(prompts: str | list[str]) -> str:
    return prompts if isinstance(prompts, str) else f"{len(prompts)} prompts of the recipe"


def _report(
    recipe: AlignmentRecipe, command: str, found: Evaluation, clock: _Clock, trainer: Trainer, num_prompts: int
) -> None:
    provenance = Provenance(
        command=command,
        config=dump_yaml(recipe.model_dump(mode="json")),
        seeds={"all stages": recipe.seed},
        counts={
            "training prompts": num_prompts,
            "candidates of each": recipe.generation.candidates,
            "pairs": len(trainer.batches.items),
            "updates": trainer.step,
            "pairs an update": trainer.records_per_update,
            "judged prompt-seed pairs": len(found.base_images),
        },
        seconds=clock.seconds,
    )
    write_report(
        Path(recipe.output),
        found.standings,
        kept_pictures({"base": found.base_images, "aligned": found.aligned_images}, len(found.base_images)),
        title=f"{recipe.model.path} aligned with {recipe.training.method.name}",
        metrics=read_metrics(Path(recipe.training.output) / "metrics.jsonl"),
        provenance=provenance,
        scorers=_agreement(recipe.generation.output),
    )
