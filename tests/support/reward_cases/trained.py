"""The reward ``trained``: a CLIP model with a head, as ``diffpref reward train`` leaves it."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_encoders import save_clip

from diffpref.config import Scorer
from diffpref.core.randomness import Random
from diffpref.models import registry
from diffpref.models.reward_files import RewardFiles
from reward_cases import RewardCase

__all__ = ["CASE", "save_run"]


def save_run(folder: Path, says: tuple[str, ...] = ("score",), **changes: object) -> Path:
    """Write what a run of a head leaves, with a head that was drawn and not trained."""
    base = save_clip(folder / "base")
    scorer = Scorer(head="mlp", hidden=[16])
    kind = registry.get("head_scorer")
    family = kind.load(str(base), parts=("network",)).settle(frozenset(says), scorer, Random(3), 3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in family.network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    family.save_network(family.network, folder / "model", None)
    told = {
        "family": "head_scorer",
        "base": str(base),
        "revision": None,
        "folder": "model",
        "heads": False,
        "says": says,
        "scorer": scorer.model_dump(mode="json"),
        "pair": {"kind": "logistic", "scale": 2.0, "threshold": 0.0, "normalize": False},
        "media": "image",
        "size": 3,
    }
    RewardFiles(**{**told, **changes}).save(folder)  # type: ignore[arg-type]
    return folder


CASE = RewardCase("trained", build=lambda folder: str(save_run(folder)))
