"""Random numbers that an objective names (``chosen_token_draw``): objectives draw nothing themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from diffpref.core.contracts import Tensors
from diffpref.core.randomness import Random
from diffpref.core.vocabulary import DRAWN, parse

__all__ = ["drawn"]


def drawn(
    names: Iterable[str], values: Tensors, keys: Sequence[tuple[str | int, ...]], random: Random
) -> dict[str, Tensor]:
    """Return the random numbers among the names: uniform in [0, 1), float64, like the mask of their units, or one a
    record.

    The n-th unit of a record gets the same number however far its row is padded, and whatever else is in the batch.

    Args:
        names: vocabulary names; those of quantities that are not drawn are passed over.
        values: holds the mask of each, such as ``chosen_token_mask`` (B, T).
        keys: of the B records.
        random: of the run.
    """
    made = {}
    for name in names:
        parsed = parse(name)
        if parsed.quantity in DRAWN:
            like = values[f"{parsed.group}_{parsed.unit}_mask"] if parsed.unit else next(iter(values.values()))
            rows = [_uniform(like.shape[1:2] if parsed.unit else (), random.generator(name, *key)) for key in keys]
            made[name] = torch.stack(rows).to(like.device)
    return made


def _uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
