"""How much two answers of a language model differ: the Jensen-Shannon divergence of what it would say next."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffpref.core.contracts import Tensors
from diffpref.core.errors import ShapeError
from diffpref.likelihood.head import CHUNK_BYTES
from diffpref.likelihood.tokens import places, read_head, spread

__all__ = ["answer_divergence", "jensen_shannon"]


def jensen_shannon(logps: Tensor, other: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of distributions, (...,) nats, from 0 (equal) to ln 2 (nothing in common).

    Args:
        logps: (..., V) log-probabilities.
        other: (..., V) of the other distribution.

    >>> round(jensen_shannon(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.9, 0.1]).log()).item(), 6)
    0.101749
    """
    middle = torch.logaddexp(logps, other) - math.log(2)
    sides = [torch.where(one > -math.inf, one.exp() * (one - middle), 0.0).sum(dim=-1) for one in (logps, other)]
    return (0.5 * (sides[0] + sides[1])).clamp(0.0, math.log(2))


def answer_divergence(one: Tensors, other: Tensors, labels: Tensor, chunk_bytes: int = CHUNK_BYTES) -> Tensor:
    """Return the mean over a row's answer of the divergence before each of its tokens, (N,) nats.

    Args:
        one: hidden states and head, as a role answers that is asked for ``token_kl``.
        other: the same of other rows with the same tokens.
        labels: (N, T) of both.
        chunk_bytes: of the logits that exist at a time.

    Raises:
        ShapeError: the two have not the same tokens.
    """
    if one["states"].shape != other["states"].shape:
        raise ShapeError(
            f"hidden states {tuple(one['states'].shape)} and {tuple(other['states'].shape)} are not of the same tokens"
        )
    first, second = read_head(one), read_head(other)
    size = max(1, chunk_bytes // (4 * len(first.weight)))
    parts = zip(one["states"].split(size), other["states"].split(size), strict=True)
    found = [jensen_shannon(first.logits(a).log_softmax(-1), second.logits(b).log_softmax(-1)) for a, b in parts]
    where = places(labels)
    each = spread(torch.cat(found), labels, where)
    count = torch.bincount(where[0], minlength=len(labels)).clamp(min=1)
    return each.sum(dim=1) / count
