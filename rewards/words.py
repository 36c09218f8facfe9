"""The judge of the words world as a reward: how much of what a prompt asks for an answer gives. No one trains on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError
from diffpref.rewards import registry
from diffpref.rewards._media import as_texts, check_lengths
from diffpref.words import FACTS, Instruction, score

__all__ = ["WordsJudge", "load_words"]

PAIR_SCALE = 2.0 * len(FACTS)
"""One more fact makes an answer the better one with probability sigmoid(2) = 0.88."""


class WordsJudge:
    """Scores answers.

    Args:
        output: ``"score"``: the mean of the parts, 0..1; ``"right"``: 1 for the right answer, else 0.
    """

    def __init__(self, output: Literal["score", "right"] = "score") -> None:
        self.output = output

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range, scale of probabilities."""
        return RewardInfo(
            name="words",
            version=f"1+{self.output}",
            licence="Apache-2.0",
            range=(0.0, 1.0),
            pair_scale=PAIR_SCALE,
            media="text",
        )

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 for N answers and N instructions of the words world.

        Raises:
            ShapeError: not as many prompts as answers.
            DataError: an answer that is no text, or a prompt that is no instruction of the words world.
        """
        check_lengths("words", media, prompts)
        pairs = zip(as_texts("words", media), prompts, strict=True)
        scores = torch.tensor([score(item, Instruction.parse(prompt)) for item, prompt in pairs], dtype=torch.float32)
        return scores if self.output == "score" else (scores == 1).float()


@registry.register("words")
def load_words(path: str | None = None, *, output: Literal["score", "right"] = "score") -> Reward:
    """Return the judge; it has no weights.

    Raises:
        ConfigError: a path is given.
    """
    if path is not None:
        raise ConfigError(f"reward 'words' has no weights and takes no path, got '{path}'")
    return WordsJudge(output)
