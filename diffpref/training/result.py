"""What a run leaves when it ends: weights in diffusers' format, folder by folder, and the card that speaks of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffpref.config import Recipe
from diffpref.core.contracts import Tensors
from diffpref.core.files import publish_folder
from diffpref.models.base import ModelFamily, Network
from diffpref.training.card import write_model_card
from diffpref.training.disk import writing
from diffpref.training.log import read_metrics
from diffpref.training.plan import Plan
from diffpref.training.reward_result import write_reward_file

__all__ = ["write_results"]


def write_results(
    output: Path,
    recipe: Recipe,
    plan: Plan,
    family: ModelFamily,
    network: Network,
    results: Mapping[str, Tensors],
    *,
    data: Mapping[str, Any],
    processes: int,
) -> None:
    """Write folders and card; what was there of an earlier end is replaced, folder by folder.

    Args:
        output: of the run; its metrics are read for the card.
        recipe: of the run.
        plan: whose adapter says how weights are written.
        family: of the model.
        network: the policy's, unwrapped.
        results: folder -> weights, whole.
        data: the digest of what was trained on.
        processes: how many trained.

    Raises:
        DiskFullError: there is no room; the checkpoints are as they were.
    """
    intact = "the checkpoints are intact: make room and run again"
    for name, state in results.items():
        needed = sum(t.numel() * t.element_size() for t in state.values())
        with writing(output / name, needed, intact), publish_folder(output / name, replace=True) as folder:
            plan.adapter.save(family, network, folder, state)
    if family.heads is not None:
        with writing(output / "heads", 0, intact), publish_folder(output / "heads", replace=True) as folder:
            family.save_heads(folder)
    write_reward_file(output, recipe, plan, family)
    metrics = read_metrics(output / "metrics.jsonl")
    with writing(output / "README.md", 10_000, intact):
        write_model_card(output, recipe, plan, data=data, metrics=metrics, processes=processes)
