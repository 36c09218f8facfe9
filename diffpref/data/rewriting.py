"""Preference data made of preference data by writing prompts anew: contexts, examples of a user, opposed instructions.

Each takes records and gives records; what is preferred follows from what the prompt now says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from diffpref.core.contracts import Judgement, Record
from diffpref.core.errors import DataError
from diffpref.core.randomness import Random

__all__ = [
    "CONTEXT",
    "EXAMPLE",
    "Instruction",
    "contradictions",
    "few_shot",
    "in_contexts",
    "mixed_preference",
    "opposed_prompts",
    "with_examples",
]

CONTEXT = "{context}\n{prompt}"
EXAMPLE = "Prompt: {prompt}\nPreferred answer: {chosen}\nOther answer: {rejected}\n\n"


def in_contexts(record: Record, contexts: tuple[str, str], template: str = CONTEXT) -> tuple[Record, Record]:
    """Return a pair in two contexts between which the preference flips (arXiv:2407.14916).

    Args:
        record: with one judgement, which holds in the first context.
        contexts: what is asked of an answer; in the second the other candidate is the better one.
        template: puts ``{context}`` and ``{prompt}`` together.

    Raises:
        DataError: the record has not one judgement.
    """
    judgement = _judgement(record)
    judgements = (judgement, replace(judgement, first=judgement.second, second=judgement.first))
    first, second = (
        replace(
            record,
            id=f"{record.id}-context{number}",
            prompt=_filled(template, {"{context}": context, "{prompt}": record.prompt}),
            judgements=(judgements[number],),
            meta={**record.meta, "context": context},
        )
        for number, context in enumerate(contexts)
    )
    return first, second


def mixed_preference(weights: Sequence[float], conditional: Sequence[float]) -> float:
    """Return P(first is better) over contexts: the mean of the conditional probabilities by the contexts' own.

    Args:
        weights: P(context), which add up to 1.
        conditional: P(first is better) in each context.

    Raises:
        DataError: the weights are none, of another number, or do not add up to 1.
    """
    if len(weights) != len(conditional) or abs(sum(weights) - 1) > 1e-6:
        raise DataError(
            f"contexts: {len(weights)} weights, which add up to {sum(weights):g}, for {len(conditional)} probabilities"
        )
    return sum(weight * probability for weight, probability in zip(weights, conditional, strict=True))


def with_examples(record: Record, examples: Sequence[Record], template: str = EXAMPLE) -> Record:
    """Return a record whose prompt first shows what its user prefers (few-shot preference optimisation,
    arXiv:2502.19312).

    Args:
        record: of a user; without examples it comes back as it is.
        examples: other records of the same user, with one judgement and text candidates each.
        template: shows one example by ``{prompt}``, ``{chosen}`` and ``{rejected}``.

    Raises:
        DataError: an example is no judged pair of texts.
    """
    shown = "".join(_shown(example, template) for example in examples)
    return replace(record, prompt=shown + record.prompt)


def few_shot(
    records: Sequence[Record], random: Random, num_examples: int, user: str = "user", template: str = EXAMPLE
) -> Iterator[Record]:
    """Yield each record with examples of the same user before it, drawn by key from that user's other prompts.

    Args:
        records: in any order; their number does not decide what is drawn for a user.
        random: keyed by record.
        num_examples: k; users with fewer other records show all of them.
        user: the key of ``meta`` that holds whose record it is.
        template: of `with_examples`.

    Raises:
        DataError: a record names no user, or is no judged pair of texts.
    """
    own: dict[str, list[Record]] = {}
    for record in records:
        if user not in record.meta:
            raise DataError(f"record '{record.id}': meta has no '{user}', so whose preference it is cannot be told")
        own.setdefault(record.meta[user], []).append(record)
    for record in records:
        others = sorted((o for o in own[record.meta[user]] if o.prompt != record.prompt), key=lambda other: other.id)
        order = random.numpy("few-shot", record.id).permutation(len(others))
        yield with_examples(record, [others[number] for number in order[:num_examples]], template)


def contradictions(records: Sequence[Record], user: str = "user") -> list[tuple[str, str]]:
    """Return the ids of records in which one user prefers opposite answers to one prompt: examples would confuse."""
    seen: dict[tuple[str, str, str, str], str] = {}
    found = []
    for record in records:
        better, worse = _texts(record)
        who = record.meta.get(user, "")
        if (who, record.prompt, worse, better) in seen:
            found.append((seen[who, record.prompt, worse, better], record.id))
        seen.setdefault((who, record.prompt, better, worse), record.id)
    return found


@dataclass(frozen=True)
class Instruction:
    """A constraint that a program can check, and its opposite.

    Args:
        asked: what a prompt says to ask for it: ``"Answer in one sentence."``
        opposite: what it says to ask for the contrary.
        holds: whether an answer satisfies ``asked``.
    """

    asked: str
    opposite: str
    holds: Callable[[str], bool]

    def text(self, satisfied: bool, answer: str) -> str:
        """Return the form that an answer satisfies, or the one that it does not."""
        return self.asked if self.holds(answer) == satisfied else self.opposite


def opposed_prompts(
    prompt: str, answer: str, instructions: Sequence[Instruction], broken: Sequence[int]
) -> tuple[str, str]:
    """Return two prompts for one answer: it satisfies every instruction of the first, and not all of the second
    (multi-level aware preference learning, arXiv:2505.12845).

    Args:
        prompt: that both begin with.
        answer: of the record.
        instructions: added to both.
        broken: which of them the answer breaks in the second prompt.

    Raises:
        DataError: none is broken, or one that there is not.
    """
    if not broken or not set(broken) <= set(range(len(instructions))):
        raise DataError(f"broken: must name at least one of {len(instructions)} instructions, got {list(broken)}")
    better = [one.text(True, answer) for one in instructions]
    worse = [one.text(number not in broken, answer) for number, one in enumerate(instructions)]
    return " ".join([prompt, *better]), " ".join([prompt, *worse])


def _judgement(record: Record) -> Judgement:
    if len(record.judgements) != 1:
        raise DataError(f"record '{record.id}': one judgement is needed, got {len(record.judgements)}")
    return record.judgements[0]


def _texts(record: Record) -> tuple[str, str]:
    """Return the texts of the better and the worse candidate."""
    judgement = _judgement(record)
    first, second = (record.candidates[place].text for place in (judgement.first, judgement.second))
    better, worse = (first, second) if judgement.probability >= 0.5 else (second, first)
    if better is None or worse is None:
        raise DataError(f"record '{record.id}': a candidate is no text")
    return better, worse


def _shown(example: Record, template: str) -> str:
    better, worse = _texts(example)
    return _filled(template, {"{prompt}": example.prompt, "{chosen}": better, "{rejected}": worse})


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """Put texts into a template in one pass, so that braces in a text stay what they are."""
    return re.sub("|".join(map(re.escape, parts)), lambda found: parts[found[0]], template)
