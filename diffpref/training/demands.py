"""Whether the data give what the objective and the method ask, before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from diffpref.core.errors import DataError
from diffpref.data import Pair
from diffpref.training.batches import pair_columns
from diffpref.training.plan import Plan

__all__ = ["check_pairs"]


def check_pairs(pairs: Sequence[Pair], plan: Plan, records_per_update: int) -> None:
    """Compare pairs with a plan.

    Raises:
        DataError: they are too few for one update, lack a column, or have labels that the objective would misread.
    """
    if len(pairs) < records_per_update:
        raise DataError(
            f"{len(pairs)} pairs are fewer than the {records_per_update} of one update (training.batch_size x"
            " training.accumulation x processes); lower these, or give more data"
        )
    given = pair_columns(pairs)
    if missing := plan.columns - given:
        raise DataError(
            f"the objective and the method need the columns {', '.join(sorted(missing))}; the data give"
            f" {', '.join(sorted(given)) or 'none'}"
        )
    if "preference" in given and (deaf := plan.composition.deaf_to_preference):
        raise DataError(
            f"the data hold soft labels or ties, which the objective {', '.join(deaf)} would take for certain wins;"
            " drop ties (data.drop_ties), give hard labels, or use an objective that reads soft ones, such as dpo"
        )
