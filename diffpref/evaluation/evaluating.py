"""All contenders of an evaluation, drawn and judged in a folder that a killed evaluation goes on in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffpref.core.errors import CheckpointError, DataError
from diffpref.core.files import sha256
from diffpref.evaluation.contenders import BASE, Contender
from diffpref.evaluation.independence import labels_of
from diffpref.evaluation.measuring import Images, Measures, Studio, measure
from diffpref.evaluation.placing import ContentDigests
from diffpref.evaluation.provenance import library_versions
from diffpref.evaluation.standings import Standings, Ties

__all__ = ["base_of", "evaluate"]

logger = logging.getLogger(__name__)


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
        ConfigError: nobody is called ``against``.
        CheckpointError: a contender's weights do not fit the base.
    """
    if not measures.judges and measures.facts is None:
        raise DataError("nobody judges: name at least one reward")
    folder, plan = studio.folder, studio.folder.plan
    everyone = [Contender(BASE, "base"), *contenders]
    digests = ContentDigests(folder.digests)
    found = {one.name: digests.of(one, base_digest) for one in everyone}
    columns = {}
    for one in everyone:
        if folder.claim(one.name, found[one.name]):
            logger.warning("%s: its weights have changed; it is drawn again", one.name)
        recipe = one.recipe()
        columns[one.name] = measure(
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
    return Standings(
        plan.prompts,
        plan.seeds,
        columns,
        {name: judge.info.version for name, judge in measures.judges.items()},
        plan.categories,
        against=against,
        ties=ties,
        seed=plan.seed,
        setting={**plan.decisive(), **(setting or {}), "versions": library_versions()},
    )
