"""A long run needs no more memory at its end than after its first updates."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch

from diffpref.config import build_recipe
from diffpref.training import Trainer

pytestmark = pytest.mark.slow


def held() -> tuple[int, int]:
    """Return the memory of this process in bytes, and how many tensors there are."""
    gc.collect()
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    return psutil.Process().memory_info().rss, tensors


def test_row_41_memory_is_flat_over_500_updates(recipe_keys: Callable[..., dict[str, Any]]) -> None:
    """With a bank, an average of the policy, checkpoints on the way, and an objective that keeps nothing."""
    training = {"steps": 500, "batch_size": 1, "checkpoint_every": 125, "ema": {"decay": 0.9}}
    trainer = Trainer(build_recipe(recipe_keys(training=training, bank={"slots": 4})))
    seen = {row["step"]: held() for row in trainer.steps() if row["step"] in (50, 200, 350, 500)}
    (start, tensors), *later = seen.values()
    assert list(seen) == [50, 200, 350, 500]
    for step, (bytes_now, tensors_now) in zip((200, 350, 500), later, strict=True):
        assert abs(bytes_now - start) <= 0.05 * start, (step, seen)
        assert tensors_now <= tensors, (step, seen)  # a few of the start may go, none may come
