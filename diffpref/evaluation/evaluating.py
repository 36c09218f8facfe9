"""All contenders of an evaluation, drawn and judged in a folder that a killed evaluation goes on in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffpref.core.errors import CheckpointError, DataError
from diffpref.core.files import sha256
from diffpref.evaluation.contenders import BASE, BASE_CONTENDER, Contender
from diffpref.evaluation.drift import DriftProbe, drift_of
from diffpref.evaluation.embedding import set_distances
from diffpref.evaluation.independence import labels_of
from diffpref.evaluation.measuring import Images, Measures, Studio, check_judges, measure
from diffpref.evaluation.placing import ContentDigests
from diffpref.evaluation.provenance import library_versions
from diffpref.evaluation.selection import random_sample
from diffpref.evaluation.standings import Column, Standings, Ties

__all__ = ["Drifts", "base_of", "evaluate"]

logger = logging.getLogger(__name__)

DRIFT_PICTURES = 32


def base_of(contenders: Sequence[Contender]) -> Any:
    """Return the recipe of the first run, whose model is the base of all.

    Raises:
        CheckpointError: there is no run, or runs started from different models.
    """
    runs = [(one, recipe) for one in contenders if (recipe := one.recipe()) is not None]
    if not runs:
        return None
    first, recipe = runs[0]
    for one, other in runs[1:]:
        if (other.model.family, other.model.path) != (recipe.model.family, recipe.model.path):
            raise CheckpointError(
                f"{one.name} started from {other.model.path}, {first.name} from {recipe.model.path}; runs of one"
                " evaluation have one base"
            )
    return recipe


def evaluate(
    contenders: Sequence[Contender],
    studio: Studio,
    measures: Measures,
    base_digest: str,
    *,
    against: str = BASE,
    ties: Ties = "half",
    images: Images = "keep",
    tell: Callable[[str, int, int], None] = lambda name, done, total: None,
    setting: Mapping[str, Any] | None = None,
) -> Standings:
    """Draw with the base and every contender, and ask every judge; what is kept from an earlier start is not redone.

    Args:
        contenders: without the base, which is always the first.
        studio: draws, into its folder.
        measures: judges, facts and probes.
        base_digest: which weights the base is.
        against: the name of the contender with whom the others are compared.
        ties: what an exactly equal score counts.
        images: which pictures stay.
        tell: called with (contender, pictures done, pictures in all) after each chunk.
        setting: JSON-ready, what the results should tell beside the numbers.

    Raises:
        DataError: nobody to judge.
        ConfigError: nobody is called ``against``, or a judge cannot score pictures of these prompts.
        CheckpointError: a contender's weights do not fit the base.
    """
    if not measures.judges and measures.facts is None:
        raise DataError("nobody judges: name at least one reward")
    folder, plan = studio.folder, studio.folder.plan
    check_judges(measures.judges, metadata=bool(plan.metadata), kind=plan.kind)
    everyone = [BASE_CONTENDER, *contenders]
    digests = ContentDigests(folder.digests)
    found = {one.name: digests.of(one, base_digest) for one in everyone}
    columns: dict[str, Column] = {}
    base_embeddings, drifts = None, Drifts(studio)
    for one in everyone:
        if folder.claim(one.name, found[one.name]):
            logger.warning("%s: its weights have changed; it is drawn again", one.name)
        recipe = one.recipe()
        whole = drifts.of(one)
        column, embeddings = measure(
            one,
            studio,
            measures,
            images=images,
            tell=tell,
            source=str(one),
            digest=found[one.name],
            labelled_by=labels_of(recipe) if recipe else (),
            config=sha256(Path(one.path) / "config.yaml") if recipe else "",
        )
        if embeddings is not None and measures.embedder is not None:
            whole |= set_distances(embeddings, base_embeddings, plan.prompts, measures.embedder)
            base_embeddings = embeddings if one.kind == "base" else base_embeddings
        columns[one.name] = replace(column, whole=whole)
    return Standings(
        plan.prompts,
        plan.seeds,
        columns,
        {name: judge.info.version for name, judge in measures.judges.items()},
        plan.categories,
        against=against,
        ties=ties,
        seed=plan.seed,
        setting={
            **plan.decisive(),
            **({"media": "clips"} if plan.kind == "video" else {}),
            **(setting or {}),
            "versions": library_versions(),
        },
    )


class Drifts:
    """Asks contenders how far they are from the base, once; the base comes first.

    Args:
        studio: holds the models.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        plan = studio.folder.plan
        rows = sorted(random_sample(len(plan), DRIFT_PICTURES))
        self.rows = rows
        self.probe = DriftProbe(
            [plan.prompts[row] for row in rows],
            [plan.seeds[row] for row in rows],
            int(plan.sampler["resolution"]),
            plan.seed,
            studio.folder.path / "drift.safetensors",
        )

    def of(self, contender: Contender) -> dict[str, float]:
        """Return the drift of a contender, and how well it denoises; kept values are not computed again."""
        file = self.studio.folder.column(contender.name, "drift", f"1, {len(self.rows)} pictures")
        if not (found := file.read()):
            base = self.probe.base()
            if base is None:
                family, sampler = self.studio.hold(BASE_CONTENDER)
                base = self.probe.ask_base(family, sampler.role, self.studio.show(BASE_CONTENDER, self.rows))
            family, sampler = self.studio.hold(contender)
            found = [drift_of(self.probe, base, family, sampler.role)]
            file.write(found)
        told = dict(found[0])
        if contender.kind == "base":
            del told["prediction drift"]  # nothing to say: 0
        return told
