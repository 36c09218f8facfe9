"""What the objectives of lists share: which candidates are there, and sums over candidates and pairs of them."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpref.core.errors import ConfigError, ShapeError

__all__ = ["check_within", "filled", "pairs_of", "there"]


def there(name: str, values: Tensor, mask: Tensor | None) -> Tensor:
    """Return (B, K) booleans: which candidates of a ragged list exist.

    Args:
        name: of the objective, for the messages.
        values: (B, K, ...) of which the shape is taken.
        mask: (B, K), 1 = there; None: all are.

    Raises:
        ShapeError: a list of fewer than two candidates, which compares nothing.
    """
    if values.shape[1] < 2:
        raise ShapeError(
            f"objective '{name}': lists of K = {values.shape[1]} candidate; a list compares at least 2: give several"
            " candidates a prompt, or use an objective of pairs or single samples"
        )
    if mask is None:
        return torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
    present = mask > 0
    if bool((present.sum(dim=1) < 2).any()):
        raise ShapeError(
            f"objective '{name}': list_mask leaves a list of fewer than 2 candidates, which compares nothing; leave"
            " such records out"
        )
    return present


def filled(values: Tensor, present: Tensor, value: float = 0.0) -> Tensor:
    """Return the values where they are there, a constant without gradient elsewhere."""
    return torch.where(present, values, values.new_full((), value))


def pairs_of(values: Tensor) -> Tensor:
    """Return (B, K, K): row i, column j holds the value of candidate i minus that of candidate j."""
    return values.unsqueeze(2) - values.unsqueeze(1)


def check_within(objective: str, name: str, values: Tensor, low: float, high: float, hint: str) -> None:
    """Refuse values outside an interval.

    Raises:
        ConfigError: naming the tensor, what it holds and what to do.
    """
    if bool(((values < low) | (values > high)).any()):
        raise ConfigError(
            f"objective '{objective}': {name} must lie in [{low:g}, {high:g}], got {values.min().item():g} to"
            f" {values.max().item():g}; {hint}"
        )
