"""Texts to tokens: prompts and completions, as plain text or as messages of a conversation, and what is cut off.

As TRL does it: prompt and completion are tokenised together, and the completion begins where that differs from the
prompt alone; a plain completion ends with the end-of-text token, a conversation as its template ends it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from diffpref.core.errors import DataError

__all__ = ["Fitted", "Text", "Truncation", "encode_completions", "fit", "split"]

Text: TypeAlias = str | Sequence[Mapping[str, Any]]
"""Plain text, or messages: ``{"role": "user", "content": "..."}``."""
Truncation: TypeAlias = Literal["completion", "prompt", "drop", "refuse"]


def encode_completions(
    tokenizer: Any, prompt: Text, completions: Sequence[Text], **template: Any
) -> tuple[list[int], list[list[int]]]:
    """Return the tokens of a prompt and those of each of its completions.

    Args:
        tokenizer: of transformers.
        prompt: text, or messages for the tokenizer's chat template.
        completions: of the same kind as the prompt.
        template: further arguments of the chat template, such as ``tools``.

    Raises:
        DataError: messages without a chat template, a mixture of both kinds, an empty completion, or an empty prompt
            for a tokenizer that has no token to begin with.
    """
    plain = isinstance(prompt, str)
    if any(isinstance(completion, str) != plain for completion in completions):
        raise DataError("a prompt and its completions must be all texts or all lists of messages")
    if isinstance(prompt, str):
        start = tokenizer(prompt)["input_ids"]
        whole = [tokenizer(prompt + str(completion))["input_ids"] for completion in completions]
    else:
        if not tokenizer.chat_template:
            raise DataError("the data hold messages, and the tokenizer has no chat template; give plain texts")
        start = _templated(tokenizer, prompt, {**template, "add_generation_prompt": True})
        whole = [_templated(tokenizer, [*prompt, *_messages(one)], template) for one in completions]
    return split(tokenizer, start, whole, completions, plain)


def split(
    tokenizer: Any, start: Sequence[int], whole: Sequence[Sequence[int]], completions: Sequence[Text], plain: bool
) -> tuple[list[int], list[list[int]]]:
    """Return the tokens of a prompt and of each completion, from those of the prompt and those of both together.

    Args:
        tokenizer: of transformers.
        start: tokens of the prompt alone.
        whole: of the prompt with each of its completions.
        completions: what was tokenised, for messages.
        plain: whether they are plain texts, which end with the end-of-text token.

    Raises:
        DataError: an empty completion, or an empty prompt for a tokenizer that has no token to begin with.
    """
    shared = min((_common(start, ids) for ids in whole), default=len(start))
    head, tails = list(start[:shared]), [list(ids[shared:]) for ids in whole]
    end, begin = tokenizer.eos_token_id, tokenizer.bos_token_id
    for number, tail in enumerate(tails):
        if not completions[number] or not tail:
            raise DataError(f"completion {number} is empty; leave its record out, or give it a text")
        if end is not None and (tail[-1] != end if plain else end not in tail):
            tail.append(end)
    if not head:
        if begin is None:
            raise DataError("the prompt is empty and the tokenizer has no token to begin with; give a prompt")
        head = [begin]
    return head, tails


def _messages(text: Text) -> Sequence[Mapping[str, Any]]:
    return [] if isinstance(text, str) else text


def _templated(tokenizer: Any, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> list[int]:
    encoded = tokenizer.apply_chat_template([dict(message) for message in messages], return_dict=True, **options)
    return list(encoded["input_ids"])


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


@dataclass(frozen=True)
class Fitted:
    """A prompt and its completions, none longer together than the limit.

    Args:
        prompt: tokens that are read.
        completions: tokens that are predicted.
        cut_prompt: how many tokens of the prompt are gone.
        cut_completions: how many completions lost their end.
    """

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    cut_prompt: int = 0
    cut_completions: int = 0


def fit(
    prompt: Sequence[int],
    completions: Sequence[Sequence[int]],
    max_length: int,
    how: Truncation = "completion",
    begin: int | None = None,
) -> Fitted | None:
    """Cut what is too long; None where the record is to be left out.

    Args:
        prompt: tokens.
        completions: tokens.
        max_length: of a prompt with any of its completions.
        how: ``completion`` cuts the ends of completions, and refuses a prompt that leaves them no room; ``prompt``
            cuts the beginning of the prompt first, for all of its completions alike; ``drop`` leaves the record out;
            ``refuse`` raises.
        begin: the token that a prompt begins with, which stays.

    Raises:
        DataError: the prompt leaves no room, or anything is too long under ``refuse``.
    """
    longest = max(map(len, completions))
    kept, room = list(prompt), max_length - len(prompt)
    if longest <= room:
        return Fitted(tuple(prompt), tuple(map(tuple, completions)))
    if how == "drop":
        return None
    if how == "refuse":
        raise DataError(
            f"{len(prompt)} tokens of prompt and {longest} of a completion are more than {max_length}; raise"
            " data.max_length, or say by data.truncation what is to be cut"
        )
    if how == "prompt":
        keep = max(min(2, len(kept)), max_length - longest)
        if keep < len(kept):
            kept = [*kept[:1], *kept[len(kept) - keep + 1 :]] if kept[0] == begin else kept[-keep:]
    room = max_length - len(kept)
    if room < 1:
        raise DataError(
            f"a prompt of {len(prompt)} tokens leaves no room for a completion within {max_length}; raise"
            " data.max_length, cut its beginning (data.truncation: prompt) or leave it out (drop)"
        )
    cut = sum(len(completion) > room for completion in completions)
    return Fitted(
        tuple(kept), tuple(tuple(completion[:room]) for completion in completions), len(prompt) - len(kept), cut
    )
