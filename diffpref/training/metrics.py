"""The numbers of an update: sums and counts of its records, added over micro-batches and processes, then divided.

Everything comes from tensors that the update computed anyway, travels in one reduction and leaves the device in one
transfer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from diffpref.core.vocabulary import parse
from diffpref.training.forward import Forward

__all__ = ["NUM_BINS", "gradient_sizes", "timestep_bins", "update_metrics"]

NUM_BINS = 10
"""Parts of equal width into which the path from clean data to noise is divided; bin 0 is the cleanest."""
BINNED = {"rewards/margins": "margins", "rewards/accuracies": "accuracies"}


def timestep_bins(places: Tensor) -> Tensor:
    """Return (B,) bin numbers of places between clean data, 0, and noise, 1."""
    return (places.double() * NUM_BINS).long().clamp(0, NUM_BINS - 1)


def gradient_sizes(gradients: Mapping[str, Tensor]) -> Tensor | None:
    """Return (B,) magnitudes of d loss / d log-likelihood, summed over a record's samples; None where none is read.

    A log-ratio moves with the policy's log-likelihood one for one, so what reads either is added before the magnitude.

    Args:
        gradients: d loss / d value by vocabulary name, (B,) or (B, K).
    """
    groups: dict[str, Tensor] = {}
    for name, value in gradients.items():
        parsed = parse(name)
        if parsed.role in ("", "policy") and not parsed.unit and parsed.quantity in ("logps", "log_ratio"):
            groups[parsed.group] = groups[parsed.group] + value if parsed.group in groups else value
    sizes = [gradient.float().abs().reshape(len(gradient), -1).sum(dim=1) for gradient in groups.values()]
    return torch.stack(sizes).sum(dim=0) if sizes else None


def update_metrics(
    seen: Sequence[Forward],
    loss: Tensor,
    coefficients: Tensor,
    place: Callable[[Tensor], Tensor],
    reduce: Callable[[Tensor], Tensor],
) -> dict[str, float]:
    """Return an update's metrics: the loss, the means over all its records, and means by timestep.

    ``margins``, ``accuracies`` and ``losses`` have a mean, ``gradient_share`` a share of the whole, under
    ``<name>/timestep_bin_<k>``. Bins without records are absent.

    Args:
        seen: this process's micro-batches, after their backward passes.
        loss: of the update, over all processes already.
        coefficients: (terms,) factors of the objective terms.
        place: tells where timesteps lie between clean data, 0, and noise, 1.
        reduce: adds a tensor over the processes.
    """
    names = list(seen[0].metrics)
    columns = {name: torch.cat([forward.metrics[name].reshape(-1) for forward in seen]) for name in names}
    count = torch.stack([torch.full_like(loss, len(forward.finite)) for forward in seen]).sum()
    members = {name: torch.cat([forward.members[name] for forward in seen]) for name in seen[0].members}
    shown = {name: columns[name] * members[name] if name in members else columns[name] for name in names}
    sums = [*(shown[name].sum().to(loss) for name in names), *(m.sum().to(loss) for m in members.values()), count]
    binned = _binned(seen, columns, coefficients, place)
    flat = reduce(torch.cat([torch.stack(sums), *(values.to(loss) for values in binned.values())]))
    values = torch.cat([loss.reshape(1), flat]).tolist()  # the one transfer
    parts = iter(values[1:])
    summed = {name: next(parts) for name in names}
    sizes, total = {name: next(parts) for name in members}, next(parts)
    metrics = {"loss": values[0]}
    metrics |= {name: value / sizes.get(name, total) for name, value in summed.items() if sizes.get(name, total)}
    if "rewards/chosen" in sizes and {"rewards/chosen", "rewards/rejected"} <= metrics.keys():
        metrics["rewards/margins"] = metrics["rewards/chosen"] - metrics["rewards/rejected"]
    tables = {name: [next(parts) for _ in range(NUM_BINS)] for name in binned}
    counts = tables.pop("count", [])
    for name, table in tables.items():
        whole = sum(table) if name == "gradient_share" else 0.0
        for k, (value, records) in enumerate(zip(table, counts, strict=True)):
            if records and name != "gradient_share":
                metrics[f"{name}/timestep_bin_{k}"] = value / records
            elif records and whole:
                metrics[f"{name}/timestep_bin_{k}"] = value / whole
    return metrics


def _binned(
    seen: Sequence[Forward],
    columns: Mapping[str, Tensor],
    coefficients: Tensor,
    place: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Return name -> (bins,) sums over this process's records, with their ``count``."""
    timesteps = [forward.timesteps for forward in seen if forward.timesteps is not None]
    if len(timesteps) != len(seen):
        return {}
    bins = timestep_bins(place(torch.cat(timesteps)))
    values = {"count": torch.ones_like(bins, dtype=torch.float32)}
    for name, short in BINNED.items():
        if name in columns and columns[name].shape == bins.shape:
            values[short] = columns[name]
    values["losses"] = torch.cat([coefficients.to(forward.losses) @ forward.losses for forward in seen])
    sizes = [size for forward in seen if (size := gradient_sizes(forward.gradients)) is not None]
    if len(sizes) == len(seen):
        values["gradient_share"] = torch.cat(sizes)
    return {
        name: torch.zeros(NUM_BINS, device=bins.device).index_add_(0, bins, value.float())
        for name, value in values.items()
    }
