"""Language models on whatever samples the objective names: pairs, labelled answers or lists.

Nothing is drawn: a row is a prompt with a completion, and all of them go through one forward. Which loss it is the
objective says; without one it is DPO (Rafailov et al., arXiv:2305.18290).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffpref.config import Section
from diffpref.core.contracts import Batch, Conditioning, Context, RoleSpec, Rows
from diffpref.data import ATTACHED
from diffpref.methods import registry

__all__ = ["Language"]


@registry.register("language", aliases=("text",))
class Language(Section):
    """The method has no options of its own."""

    source: ClassVar[str] = (
        "Rafailov et al., Direct Preference Optimization: Your Language Model is Secretly a Reward Model, NeurIPS 2023,"
        " arXiv:2305.18290"
    )
    evidence: ClassVar[str] = "official"
    likelihood: ClassVar[str] = "tokens"
    accepts: ClassVar[frozenset[str]] = frozenset({"", "chosen", "rejected", "list", "mismatched", *ATTACHED})

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        still = {role: RoleSpec() for role in ("reference", "guide", "previous", "behaviour")}
        return {**still, "peer": RoleSpec("adapter", trained=True)}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("dpo", {})]

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Put the rows of all groups after one another."""
        groups: dict[str, Tensor] = {}
        ids, labels, conditions = [], [], []
        start = 0
        for group, tokens in batch.media.items():
            told = batch.conditioning[group].tensors
            flat = tokens.flatten(0, -2)
            rows = torch.arange(start, start + len(flat), device=tokens.device)
            there = told["attention_mask"].flatten(0, -2)[:, 0] > 0
            groups[group] = torch.where(there, rows, -1).view(tokens.shape[:-1])
            ids.append(flat)
            labels.append(told["labels"].flatten(0, -2))
            extra = tokens.dim() - 2  # dimensions of a list
            conditions.append(Conditioning({name: t.flatten(0, extra) for name, t in told.items() if name != "labels"}))
            start += len(flat)
        return Rows(
            likelihood="tokens",
            inputs={"ids": torch.cat(ids), "labels": torch.cat(labels)},
            conditioning=Conditioning.concatenate(conditions),
            groups=groups,
            columns=batch.columns,
            no_grad=frozenset({"mismatched"}),
        )
