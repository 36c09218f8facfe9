"""The geometric mixture of two models, p^(1 - a) q^a up to a factor: token by token, or denoising step by step.

For tokens it is exact: logits a * q + (1 - a) * p (the normalisers cancel). For a denoiser the predictions are mixed
alike, which is the score of the product of the two at each noise level, the approximation that guidance makes too.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffpref.core.contracts import Role, Rows
from diffpref.core.errors import ConfigError
from diffpref.models.gates import Manager, enter
from diffpref.sampling.text import MakeProcessor

__all__ = ["GeometricMixture", "MixedRole", "mixture_of"]


def _check(share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"share: must be >= 0 and <= 1, got {share}")


@dataclass(frozen=True)
class MixedRole:
    """A denoiser whose prediction is (1 - share) * one + share * other.

    Args:
        one: a role.
        other: another of the same kind of prediction.
        share: of the other, 0..1.

    Raises:
        ConfigError: a share out of its range.
    """

    one: Role
    other: Role
    share: float

    def __post_init__(self) -> None:
        _check(self.share)

    def __call__(self, rows: Rows, grad: bool = False) -> dict[str, Tensor]:
        """Ask both, and mix what they predict in float32."""
        if grad:
            raise ConfigError("a mixture is for sampling; ask its parts for gradients")
        one, other = self.one(rows)["prediction"].float(), self.other(rows)["prediction"].float()
        return {"prediction": torch.lerp(one, other, self.share)}


class GeometricMixture:
    """A logits processor of transformers: scores of the generating model become those of its mixture with another.

    Args:
        network: the other model, of the same vocabulary.
        share: of the other, 0..1.
        mask: (N, T) attention mask of the prompts.
        gate: makes the context in which the network is the other model: a LoRA switched on or off.

    Raises:
        ConfigError: a share out of its range.
    """

    def __init__(self, network: Any, share: float, mask: Tensor, gate: Manager = nullcontext) -> None:
        _check(share)
        self.network, self.share, self.mask, self.gate = network, share, mask, gate
        self._cache: dict[str, Any] = {}
        self._read = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return (N, V) mixed scores for (N, T) tokens so far; each call has a token more than the one before."""
        grown = input_ids.shape[1] - self.mask.shape[1]
        mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), grown)], dim=1)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        new = slice(self._read, None)
        self._cache = self._cache or _fresh_cache(self.network)
        with torch.no_grad(), enter(self.gate):
            found = self.network(
                input_ids=input_ids[:, new],
                attention_mask=mask,
                position_ids=positions[:, new],
                use_cache=True,
                logits_to_keep=1,
                **self._cache,
            )
        self._read = input_ids.shape[1]
        return torch.lerp(scores.float(), found.logits[:, -1].float().to(scores.device), self.share)


def _fresh_cache(network: Any) -> dict[str, Any]:
    """Return an empty cache under the name by which this version of transformers takes it; calls fill it in place."""
    from transformers import DynamicCache

    known = inspect.signature(network.forward).parameters
    return {"cache" if "cache" in known else "past_key_values": DynamicCache(config=network.config)}


def mixture_of(network: Any, share: float, gate: Manager = nullcontext) -> MakeProcessor:
    """Return what a `TextSampler` makes a mixture's processor of for each batch."""

    def make(mask: Tensor) -> GeometricMixture:
        return GeometricMixture(network, share, mask, gate)

    return make
