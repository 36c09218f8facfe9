"""Records of good answers about pictures, each with a bad one that the model made of it when it saw little."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.core.errors import DataError
from diffpref.data.images import read_picture
from diffpref.data.pairs import whole_judgements
from diffpref.data.texts import answer_of, prompt_of, template_of
from diffpref.sampling.hidden import HiddenSampler

__all__ = ["GENERATOR", "with_hallucinations"]

GENERATOR = "bdhs"
"""Who made the candidate, as the record says."""
ONLINE = "online"


def with_hallucinations(
    records: Iterable[Record], sampler: HiddenSampler, resolution: int | None = None
) -> Iterator[Record]:
    """Add to each record an answer that the model makes of its good one while most of the picture is hidden.

    Where the record judges a pair already, the new answer is its ``online`` sample, which the objective ``bdhs`` reads
    beside the rejected one; else the first candidate is the good answer, and the new one is judged worse, for ``dpo``.

    Args:
        records: with pictures and texts.
        sampler: makes the answers; the record's id is the key of its draws.
        resolution: side to which pictures are brought, as `data.resolution` of a run; None leaves them.

    Raises:
        DataError: a record has no picture or no good answer, or does not fit into the model.
    """
    for record in records:
        found = whole_judgements(record)
        good = (found[0].first if found[0].probability >= 0.5 else found[0].second) if found else 0
        if not record.candidates:
            raise DataError(f"record {record.id!r}: there is no answer to follow")
        said = answer_of(record, good)
        if not isinstance(said, str):
            if len(said) != 1 or not isinstance(said[0].get("content"), str):
                raise DataError(f"record {record.id!r}: an answer of several messages cannot be followed")
            said = str(said[0]["content"])
        pictures = [read_picture(media, resolution) for media in record.inputs]
        try:
            made = sampler(prompt_of(record), said, pictures, record.id, **template_of(record))
        except DataError as error:
            raise DataError(f"record {record.id!r}: {error}") from error
        number = len(record.candidates)
        record = replace(record, candidates=(*record.candidates, Candidate(text=made, generator=GENERATOR)))
        if found:
            yield replace(record, meta={**record.meta, ONLINE: str(number)})
        else:
            yield replace(record, judgements=(Judgement(good, number, 1.0, annotator=GENERATOR),))
