"""For language models: prompts and completions as tokens, all of them made once, before the first step."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffpref.config import Data, Recipe
from diffpref.core.contracts import Batch, Conditioning, Record
from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.core.vocabulary import parse
from diffpref.data import Item
from diffpref.data.clips import Check, check_media
from diffpref.data.images import picture_bytes, read_picture
from diffpref.data.spans import CORRECT, spans_of, token_marks
from diffpref.data.texts import answer_of, prompt_of, template_of
from diffpref.likelihood.tokens import IGNORED
from diffpref.models import open_family
from diffpref.models.pictures import VISION
from diffpref.models.tokenising import fit
from diffpref.training.encoders import Key, Place, Shown, registry

__all__ = ["Encoded", "TokenEncoder"]

logger = logging.getLogger(__name__)

SHOWN = 5
"""Records named in an error."""
KEPT = 256
"""Records whose pictures stay processed."""


@dataclass(frozen=True)
class Encoded:
    """A record's tokens: of its prompt, and candidate -> of its completion; and where marked, marks of its tokens."""

    prompt: tuple[int, ...]
    completions: Mapping[int, tuple[int, ...]]
    marks: Mapping[int, Sequence[tuple[int, bool]]] = field(default_factory=dict)


@registry.register("tokens")
class TokenEncoder:
    """Rows of a prompt and a completion, padded on the right.

    Args:
        records: of the source.
        family: with its tokenizer.
        device: where batches go.
        data: how much is read, and what gives way.
        even: whether every row is as long as the longest of the data, so that all batches have one shape.
    """

    texts: ClassVar[bool] = True

    def __init__(
        self, records: Sequence[Record], family: Any, device: torch.device, data: Data, even: bool = False
    ) -> None:
        self.records, self.family, self.device, self.data, self.even = records, family, device, data, even
        self.pad, self.begin = family.tokenizer.pad_token_id, family.tokenizer.bos_token_id
        self.max_length = min(n for n in (data.max_length, family.context, 2**31) if n is not None)
        if data.max_length is not None and self.max_length < data.max_length:
            logger.warning("data.max_length: the model reads %d tokens, not %d", self.max_length, data.max_length)
        self.encoded: dict[int, Encoded] = {}
        self.longest, self.marked = 0, False
        self._seen: dict[int, dict[str, Tensor]] = {}

    @classmethod
    def open(
        cls,
        recipe: Recipe,
        records: Sequence[Record],
        random: Random,
        device: torch.device,
        names: Sequence[str] = (),
    ) -> TokenEncoder:
        data = recipe.data
        units = any(parse(name).unit for name in names)
        even = data.padding == "data" or (data.padding == "auto" and (units or recipe.bank.slots > 0))
        return cls(records, open_family(recipe.model, "text"), device, data, even)

    # ------------------------------------------------------------ before the first step

    @classmethod
    def check(cls, recipe: Recipe) -> Check:
        return check_media

    def usable(self, items: Sequence[Item], groups: Sequence[str]) -> Sequence[Item]:
        """Tokenise every item; leave out those that are too long where ``data.truncation`` is ``drop``.

        Raises:
            DataError: it lists the records that cannot be put before the model, and says what to do.
        """
        wanted: dict[int, set[int]] = {}
        for item in items:
            numbers = {number for several in item.groups.values() for number in _several(several)}
            wanted.setdefault(item.record_index, set()).update(numbers)
        counts: Counter[str] = Counter()
        problems: list[str] = []
        for index, numbers in wanted.items():
            try:
                self._encode(index, sorted(numbers), counts)
            except DataError as error:
                problems.append(f"record {self.records[index].id!r}: {error}")
        if problems:
            more = f"\n... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            raise DataError("\n".join(problems[:SHOWN]) + more)
        for what, count in counts.items():
            logger.warning("texts: %d of %d records %s (data.max_length %d)", count, len(wanted), what, self.max_length)
        kept = [item for item in items if item.record_index in self.encoded]
        if not kept:
            raise DataError(f"no text fits into data.max_length {self.max_length}")
        self.marked = any(one.marks for one in self.encoded.values())
        self.longest = max(len(one.prompt) + max(map(len, one.completions.values())) for one in self.encoded.values())
        return kept

    def _encode(self, index: int, numbers: Sequence[int], counts: Counter[str]) -> None:
        record = self.records[index]
        answers = [answer_of(record, number) for number in numbers]
        seen = {"pictures": self._pictures(index)} if self.family.sees else {}
        if record.inputs and not self.family.sees:
            raise DataError(f"has {len(record.inputs)} pictures, and model.family {self.family.name} sees none")
        prompt, completions = self.family.encode(prompt_of(record), answers, **seen, **template_of(record))
        fitted = fit(prompt, completions, self.max_length, self.data.truncation, self.begin)
        if fitted is not None and fitted.cut_prompt and record.inputs:
            raise DataError(
                "is too long, and cutting its prompt would cut its pictures; raise data.max_length or drop it"
            )
        if fitted is None:
            counts["are too long and left out"] += 1
            return
        counts += Counter({"lost the beginning of their prompt": int(fitted.cut_prompt > 0)})
        counts += Counter({"lost the end of a completion": int(fitted.cut_completions > 0)})
        for name in ("lost the beginning of their prompt", "lost the end of a completion"):
            if not counts[name]:
                del counts[name]
        marks = {
            number: self._marks(record, number, ids)
            for number, ids in zip(numbers, completions, strict=True)
            if spans_of(record, number)
        }
        self.encoded[index] = Encoded(fitted.prompt, dict(zip(numbers, fitted.completions, strict=True)), marks)

    def _marks(self, record: Record, number: int, ids: Sequence[int]) -> list[tuple[int, bool]]:
        """Return the marks of a completion's tokens, before anything is cut off."""
        read = self.family.tokenizer.decode
        pieces = [read(ids[: count + 1], skip_special_tokens=True) for count in range(len(ids))]
        return token_marks(pieces, record.candidates[number].text or "", spans_of(record, number))

    def encode(self, items: Sequence[Item], groups: Sequence[str]) -> None:
        """Everything is done by `usable`."""

    def release(self) -> None:
        """Forget the tokenizer; pictures are processed when they are shown, because they take much more room."""
        if not self.family.sees:
            self.family.drop("text")

    def _pictures(self, index: int) -> list[Any]:
        """Return the pictures of a record's prompt, RGB."""
        record = self.records[index]
        return [read_picture(media, self.data.resolution) for media in record.inputs]

    def _look(self, index: int) -> dict[str, Tensor]:
        """Return the processor's tensors of a record's pictures; the last records' are kept."""
        if index not in self._seen:
            if len(self._seen) >= KEPT:
                self._seen.pop(next(iter(self._seen)))
            pictures = self._pictures(index)
            self._seen[index] = self.family.look(pictures) if pictures else {}
        return self._seen[index]

    def _vision(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return what the model is told of the pictures of each item, (B, ...).

        Raises:
            DataError: the items' tensors differ in shape.
        """
        if not self.family.sees:
            return {}
        told = [self._look(item.record_index) for item in items]
        shapes = {tuple(sorted((name, tuple(t.shape)) for name, t in one.items())) for one in told}
        if len(shapes) > 1:
            raise DataError(
                f"the pictures of one batch become tensors of different shapes, {' and '.join(map(str, shapes))}; give"
                " every record as many pictures, and make them equal in size by data.resolution"
            )
        return {f"{VISION}{name}": torch.stack([one[name] for one in told]) for name in told[0]}

    def content(self, place: Place) -> str:
        record = self.records[place.record]
        seen = [hashlib.blake2b(picture_bytes(media), digest_size=16).hexdigest() for media in record.inputs]
        told = [record.candidates[place.candidate].text, sorted(record.meta.items()), *seen]
        return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()

    # ------------------------------------------------------------ in a step

    def batch(self, keys: Sequence[Key], items: Sequence[Item], shown: Shown) -> Batch:
        """Return token rows: ``media[group]`` ids, ``conditioning[group]`` ``attention_mask`` and ``labels``."""
        rows = {
            group: [[self._row(item, place) for place in places] for item, places in zip(items, several, strict=True)]
            for group, several in shown.items()
        }
        longest = max(len(p) + len(c) for several in rows.values() for one in several for p, c in one)
        length = max(longest, self.longest) if self.even else longest
        media, conditioning, vision = {}, {}, self._vision(items)
        for group, several in rows.items():
            ids, labels, mask = _padded([pair for one in several for pair in one], length, self.pad)
            shape = (len(items), -1, length) if group == "list" else (len(items), length)
            media[group] = ids.view(shape).to(self.device)
            tensors = {"labels": labels.view(shape), "attention_mask": mask.view(shape)}
            each = len(labels) // len(items)  # rows of an item, all under its own prompt
            for name, tensor in vision.items():
                tensors[name] = tensor if each == 1 else tensor.unsqueeze(1).expand(-1, each, *tensor.shape[1:])
            conditioning[group] = Conditioning(tensors).to(self.device)
        return Batch(tuple(keys), media, conditioning, self._marked(shown, length), Conditioning({}))

    def _marked(self, shown: Shown, length: int) -> dict[str, Tensor]:
        """Return for each side (B, T) severity (``_token_score``) and misread pictures (``_token_label``) of tokens."""
        columns: dict[str, Tensor] = {}
        for group in shown if self.marked else ():
            if group in ("", "list"):
                continue
            values = torch.zeros(len(shown[group]), length, 2)
            for row, (place,) in enumerate(shown[group]):
                if place is not None:
                    one = self.encoded[place.record]
                    count = min(len(one.completions[place.candidate]), length)
                    marks = one.marks.get(place.candidate, [(CORRECT, False)] * count)
                    values[row, :count] = torch.tensor(marks[:count], dtype=torch.float32)
            for name, value in zip(("score", "label"), values.unbind(dim=2), strict=True):
                columns[f"{group}_token_{name}"] = value.to(self.device)
        return columns

    def _row(self, item: Item, place: Place | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return prompt and completion; a companion comes under the item's own prompt, cut where it must be."""
        if place is None:
            return (), ()
        prompt = self.encoded[item.record_index].prompt
        completion = self.encoded[place.record].completions[place.candidate]
        return prompt, completion[: self.max_length - len(prompt)]


def _padded(
    rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], length: int, pad: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, labels and mask, (N, length) each."""
    ids = torch.full((len(rows), length), pad, dtype=torch.int64)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for number, (prompt, completion) in enumerate(rows):
        end = len(prompt) + len(completion)
        ids[number, :end] = torch.tensor((*prompt, *completion), dtype=torch.int64)
        labels[number, len(prompt) : end] = ids[number, len(prompt) : end]
        mask[number, :end] = 1
    return ids, labels, mask


def _several(candidates: int | tuple[int, ...]) -> tuple[int, ...]:
    return (candidates,) if isinstance(candidates, int) else candidates
