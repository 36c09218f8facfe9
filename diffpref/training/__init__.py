"""The training loop, its data, its checkpoints."""

from __future__ import annotations

from diffpref.training.trainer import Trainer

__all__ = ["Trainer"]
