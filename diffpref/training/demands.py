"""Whether the data give what the objective and the method ask, before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.core.vocabulary import parse
from diffpref.data import ATTACHED, Item, given_columns
from diffpref.training.plan import Plan
from diffpref.training.rehearsal import rehearse

__all__ = ["check_items", "check_sources"]

SCORED = "name a score in data.score; 'diffpref score STORE --rewards NAME --output DIR' gives candidates one"
HOW = {
    "segment_label": "it is there where parts of clips are judged, with start and end, and data.score is left out;"
    " 'diffpref score STORE --rewards NAME --segments 1 --output DIR' judges them",
    "label": "give candidates labels of 0 or 1",
    "preferences": "name judgements' aspects, or scores, in data.aspects",
    "score": "name a score in data.score",
    "list_scores": "lists of candidates with scores have it: name one in data.score",
    "ranks": "lists of candidates have it",
    "preference": "it is there where a judgement's probability is not 1, or with data.score_labels: soft",
    "weight": "it is there where a judgement's weight is not 1, or for pairs by a score with data.rarity_bins",
    "chosen_score": SCORED,
    "rejected_score": SCORED,
}


def check_items(items: Sequence[Item], plan: Plan, records_per_update: int, timesteps: Tensor | None = None) -> None:
    """Compare the items of a view with a plan.

    Args:
        items: of the view that the plan takes.
        plan: of the run.
        records_per_update: in all processes.
        timesteps: (2,) such as the family draws; None where it is not known yet.

    Raises:
        DataError: they are too few for one update, lack a column, or have labels that the objective would misread.
        ConfigError: an objective refuses its options or what the columns hold.
    """
    if len(items) < records_per_update:
        raise DataError(
            f"{len(items)} {plan.view} are fewer than the {records_per_update} of one update (training.batch_size x"
            " training.accumulation x processes); lower these, or give more data"
        )
    given = given_columns(items)
    if missing := plan.columns - given - {"list_mask"}:
        how = "".join(f"; {name}: {HOW[name]}" for name in sorted(missing) if name in HOW)
        raise DataError(
            f"the objective and the method need the columns {', '.join(sorted(missing))}; the data give"
            f" {', '.join(sorted(given)) or 'none'}{how}"
        )
    for group in (group for group in plan.taken if group in ATTACHED):
        if lacking := sum(group not in item.groups for item in items):
            raise DataError(
                f"the objective needs a '{group}' sample with each pair, and {lacking} of {len(items)} have none; say"
                f" in the record's meta which candidate it is: {{{group}: '2'}}"
            )
    if "preference" in given and (deaf := plan.composition.deaf_to_preference):
        raise DataError(
            f"the data hold soft labels or ties, which the objective {', '.join(deaf)} would take for certain wins;"
            " drop ties (data.drop_ties), give hard labels, or use an objective that reads soft ones, such as dpo"
        )
    lengths = {len(several) for item in items if isinstance(several := item.groups.get("list"), tuple)}
    if len(lengths) > 1 and (unaware := _unaware(plan)):
        raise DataError(
            f"the lists hold {min(lengths)} to {max(lengths)} candidates, and the objective {', '.join(unaware)} reads"
            " no list_mask, so it would take what is missing for a candidate; give lists of one length"
        )
    one = _tells_timesteps(plan)
    told = given | plan.made | (frozenset({"timesteps"}) if one else frozenset())
    rehearse(plan.composition, plan.names, items[0], told, timesteps if one else None)


def _tells_timesteps(plan: Plan) -> bool:
    """Whether all samples of a record are noised to one level, so that objectives are told which."""
    several = getattr(plan.method, "draws", 1) > 1 or not getattr(plan.method, "share_timestep", True)
    return plan.method.likelihood == "denoising" and not several


def check_sources(records: Sequence[Record], items: Sequence[Item], wanted: str, folder: str) -> None:
    """Compare where the records of items come from with what a method learns from.

    Args:
        records: of the source.
        items: of a view of them.
        wanted: ``source`` of every record; ``"any"``: whatever it is.
        folder: where the records lie, for the message.

    Raises:
        DataError: records of another source; it says how many, and the command that makes the right ones.
    """
    others = sum(records[item.record_index].source != wanted for item in items) if wanted != "any" else 0
    if others:
        raise DataError(
            f"data.source: {others} of {len(items)} items of '{folder}' are no {wanted} pairs; 'diffpref generate"
            " data/guided_clips --ground_truth FOLDER --output DIR' makes such from clips with captions; where they"
            " were made so elsewhere, set the method's pair_source to any"
        )


def _unaware(plan: Plan) -> list[str]:
    """Return the terms that compare lists and do not ask which candidates are there."""
    specs = [term.spec for term in plan.composition.terms]
    lists = [spec for spec in specs if any(parse(name).group == "list" for name in spec.tensors)]
    return [spec.name for spec in lists if "list_mask" not in (*spec.tensors, *spec.optional)]
