"""Good samples alone, for methods that never look at a loser: the winners of pairs, and candidates without a rival."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.data.pairs import Pair, pair_view

__all__ = ["winner_view"]


def winner_view(records: Sequence[Record], **pairing: Any) -> list[Pair]:
    """Return a pair for each winner, in the order of the records.

    A record with one candidate, such as a picture with its caption, gives a pair of this candidate with itself, whose
    losing side nobody may ask.

    Args:
        records: of a store or a plain table.
        pairing: how pairs are made of records with several candidates, as for `diffpref.data.pairs.pair_view`.

    Raises:
        DataError: there are no pairs, and no record with a single candidate either.
    """
    alone = [Pair(i, record.id, record.prompt, 0, 0) for i, record in enumerate(records) if len(record.candidates) == 1]
    if len(alone) == len(records):
        return alone
    try:
        pairs = list(pair_view(records, **pairing))
    except DataError:
        if not alone:
            raise
        pairs = []
    return sorted([*pairs, *alone], key=lambda pair: pair.record_index)
