"""Judges of two answers, which also score one answer: by the odds that it beats the reference of its prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from diffpref.core.contracts import Media, RewardInfo
from diffpref.rewards._media import as_texts, check_lengths
from diffpref.rewards._text_network import references

__all__ = ["LogOdds", "TextJudge"]

LogOdds: TypeAlias = Callable[[Sequence[str], Sequence[str], Sequence[str]], Tensor]
"""(N first answers, N second answers, N prompts) -> (N,) log-odds that the first is the better one."""


class TextJudge:
    """Compares two answers.

    Args:
        info: what it says of itself; it needs metadata, for ``score``.
        log_odds: see `LogOdds`.
    """

    def __init__(self, info: RewardInfo, log_odds: LogOdds) -> None:
        self._info, self.log_odds = info, log_odds

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    @torch.no_grad()
    def compare(self, first: Sequence[Media], second: Sequence[Media], prompts: Sequence[str]) -> Tensor:
        """Return (N,) float32 P(first is better than second) on the CPU, as the model sees them in this order.

        Raises:
            ShapeError: not as many prompts as pairs.
            DataError: an answer is no text, or too long.
        """
        name = self._info.name
        check_lengths(name, first, prompts)
        check_lengths(name, second, prompts)
        one, other = as_texts(name, first), as_texts(name, second)
        return self.log_odds(one, other, prompts).sigmoid() if one else torch.zeros(0)

    @torch.no_grad()
    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 log-odds that an answer beats ``metadata[i]["reference"]``, the mean over both orders.

        A single answer has no other score: only scores against one and the same reference can be compared.

        Raises:
            ShapeError: not as many prompts as answers.
            DataError: an answer is no text, or an item has no reference.
        """
        name = self._info.name
        check_lengths(name, media, prompts, metadata)
        answers = as_texts(name, media)
        if not answers:
            return torch.zeros(0)
        why = "compares two answers: call compare, or score an answer against a reference"
        others = references(name, metadata, why)
        return 0.5 * (self.log_odds(answers, others, prompts) - self.log_odds(others, answers, prompts))
