"""Reward models on whatever samples the objective names: pairs, single scored samples or lists.

Nothing is drawn but the view of a picture: a row is an item with its prompt, and all of them go through one forward.
Which loss it is the objective says; without one it is Bradley and Terry's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffpref.config import Section
from diffpref.core.contracts import Batch, Conditioning, Context, RoleSpec, Rows, Tensors
from diffpref.methods import registry

__all__ = ["RewardModel"]


@registry.register("reward_model")
class RewardModel(Section):
    """The method has no options of its own."""

    source: ClassVar[str] = (
        "Christiano et al., Deep Reinforcement Learning from Human Preferences, NeurIPS 2017, arXiv:1706.03741; of"
        " pictures: Kirstain et al., Pick-a-Pic, arXiv:2305.01569"
    )
    evidence: ClassVar[str] = "official"
    likelihood: ClassVar[str] = "score"
    accepts: ClassVar[frozenset[str]] = frozenset({"", "chosen", "rejected", "list", "mismatched"})

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        return {"reference": RoleSpec()}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("bradley_terry", {})]

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Put the rows of all groups after one another, each with its record's prompt."""
        groups: dict[str, Tensor] = {}
        media, prompts = [], []
        shared, start, size = batch.conditioning[""], 0, len(batch)
        for group, items in batch.media.items():
            length = items.shape[1] if group == "list" else 1
            rows = torch.arange(start, start + size * length, device=items.device)
            media.append(items.flatten(0, 1) if group == "list" else items)
            prompts.append(shared.take((rows - start) // length))
            rows = rows.view(size, length) if group == "list" else rows
            there = batch.columns.get("list_mask") if group == "list" else None
            groups[group] = rows if there is None else torch.where(there > 0, rows, -1)
            start += size * length
        return Rows(
            likelihood="score",
            inputs={"media": torch.cat(media)},
            conditioning=Conditioning.concatenate(prompts),
            groups=groups,
            columns=batch.columns,
        )

    def after_step(self, context: Context) -> Tensors:
        """Keep the logit scale of a cosine within its bounds, as the official codes of PickScore and HPS v2 do."""
        context.family.after_update()
        return {}
