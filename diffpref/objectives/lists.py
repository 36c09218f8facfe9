"""What the objectives of lists share: which candidates are there, and sums over candidates and pairs of them."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError, ShapeError

__all__ = ["both", "check_within", "filled", "pairs_of", "per_length", "there"]


def there(name: str, scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return (B, K) booleans: which candidates of a ragged list exist.

    Args:
        name: of the objective, for the messages.
        scores: (B, K), or any other of the list's tensors; its shape is taken.
        mask: (B, K), 1 = there; None: all are.

    Raises:
        ShapeError: a list of fewer than two candidates, which compares nothing.
    """
    if scores.shape[1] < 2:
        raise ShapeError(
            f"objective '{name}': lists of K = {scores.shape[1]} candidate; a list compares at least 2: give several"
            " candidates a prompt, or use an objective of pairs or single samples"
        )
    if mask is None:
        return torch.ones(scores.shape[:2], dtype=torch.bool, device=scores.device)
    present = mask > 0
    if bool((present.sum(dim=1) < 2).any()):
        raise ShapeError(
            f"objective '{name}': list_mask leaves a list of fewer than 2 candidates, which compares nothing; leave"
            " such records out"
        )
    return present


def filled(values: Tensor, mask: Tensor, value: float = 0.0) -> Tensor:
    """Return the values where the mask is true, a constant without gradient elsewhere."""
    return torch.where(mask, values, value)


def pairs_of(values: Tensor) -> Tensor:
    """Return (B, K, K): row i, column j holds the value of candidate i minus that of candidate j."""
    return values.unsqueeze(2) - values.unsqueeze(1)


def both(mask: Tensor) -> Tensor:
    """Return (B, K, K): whether both candidates of a pair are there."""
    return mask.unsqueeze(2) & mask.unsqueeze(1)


def per_length(name: str, divide: bool, values: Tensor, length: Tensor | None, mask: Tensor) -> Tensor:
    """Return (B, K) sums divided by the lengths of their samples, or as they are.

    Args:
        name: of the objective, for the message.
        divide: whether to divide.
        values: (B, K).
        length: (B, K), may hold anything where no candidate is.
        mask: (B, K) booleans: where one is.

    Raises:
        ConfigError: there are no lengths to divide by.
    """
    if not divide:
        return values
    if length is None:
        raise ConfigError(
            f"{name}: length_normalize needs the column list_length; set length_normalize=false to compare sums"
        )
    return values / filled(length, mask, 1.0)


def check_within(objective: str, name: str, scores: Tensor, low: float, high: float, hint: str) -> None:
    """Refuse values outside an interval.

    Raises:
        ConfigError: naming the tensor, what it holds and what to do.
    """
    if bool(((scores < low) | (scores > high)).any()):
        raise ConfigError(
            f"objective '{objective}': {name} must lie in [{low:g}, {high:g}], got {scores.min().item():g} to"
            f" {scores.max().item():g}; {hint}"
        )
