"""Heads that read a vision-language model at tokens of their own: a verdict stands where its token stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from diffpref.core.contracts import Tensors
from diffpref.core.errors import DataError
from diffpref.rewards._vlm import Question, VisionLanguage, grouped

__all__ = ["Positions", "RewardTokens", "check_prompts"]

Positions: TypeAlias = Literal["sequential", "mrope"]
"""How places are told to a Qwen2-VL: one number for each token, or three for those of pictures."""


def check_prompts(model: VisionLanguage, prompts: Sequence[str]) -> None:
    """Stop at a prompt that holds a token of the model's own, such as the one that stands for a picture.

    Raises:
        DataError: the message has the number of the prompt and the token.
    """
    own = list(model.processor.tokenizer.get_added_vocab())
    for number, prompt in enumerate(prompts):
        if found := next((token for token in own if token in prompt), None):
            raise DataError(
                f"reward '{model.owner}', prompt {number} holds {found}, which means something to its model"
            )


@dataclass(frozen=True)
class RewardTokens:
    """A network and its heads.

    Args:
        model: its network ends in hidden states and is of the Qwen2-VL family.
        head: (..., D) hidden states -> (..., O); kept and run in float32.
        tokens: T words of the vocabulary, each once in every question.
        positions: published models of this kind were trained with ``"sequential"`` places: their code hands the network
            embeddings in place of tokens, so that it cannot tell pictures from words and counts on.
    """

    model: VisionLanguage
    head: nn.Module
    tokens: tuple[str, ...]
    positions: Positions = "sequential"

    @torch.no_grad()
    def read(self, questions: Iterable[Question]) -> Tensor:
        """Return (N, T, O) float32 on the CPU: what the head says at each token of each question.

        Raises:
            DataError: a question is too long for the model, a picture of it cannot be shown, or it lacks a token.
        """
        network = self.model.network
        ids = torch.tensor(self.model.processor.tokenizer.convert_tokens_to_ids(list(self.tokens)))

        def run(batch: Tensors) -> Tensor:
            placed = self.model.placed(batch)
            if self.positions == "sequential":
                count, length = batch["input_ids"].shape
                placed["position_ids"] = torch.arange(length, device=network.device).expand(3, count, length)
            found = batch["input_ids"][:, None] == ids[:, None]  # (n, T, L)
            if not (found.sum(dim=-1) == 1).all():
                raise DataError(
                    f"reward '{self.model.owner}': a question does not hold {', '.join(self.tokens)} once each"
                )
            hidden = network(**placed, use_cache=False).last_hidden_state
            places = found.int().argmax(dim=-1)
            rows = torch.arange(len(places))[:, None]
            said: Tensor = self.head(hidden[rows, places].float())
            return said.cpu()

        return torch.stack(grouped(self.model.rows(questions), run, self.model.micro_batch))
