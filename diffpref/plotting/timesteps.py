"""What a run learns where: means by timestep, from the rows of ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffpref.plotting.canvas import BLUE, GREY, new_axes
from diffpref.plotting.curves import series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["by_timestep", "plot_gradient_share", "plot_margin_by_timestep"]

NUM_BINS = 10


def by_timestep(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (10,) means and standard errors of a metric over the last half of a run, from clean to noise.

    Args:
        rows: each with ``step``; ``<name>/timestep_bin_<k>`` where the update had records there.
        name: ``margins``, ``accuracies``, ``losses`` or ``gradient_share``. A share that is absent is 0: the update had
            no record there.

    NaN where there is nothing.
    """
    late = rows[len(rows) // 2 :]
    means, errors = np.full(NUM_BINS, np.nan), np.full(NUM_BINS, np.nan)
    for k in range(NUM_BINS):
        values = series(late, f"{name}/timestep_bin_{k}")[1]
        if name == "gradient_share" and any(f"{name}/timestep_bin_{j}" in row for row in late for j in range(NUM_BINS)):
            values = np.array([row.get(f"{name}/timestep_bin_{k}", 0.0) for row in late if "loss" in row])
        if len(values):
            means[k], errors[k] = values.mean(), values.std() / np.sqrt(len(values))
    return means, errors


def _bars(rows: Sequence[Mapping[str, Any]], name: str, scale: float, ylabel: str, ax: Axes | None) -> Axes:
    ax = new_axes() if ax is None else ax
    means, errors = by_timestep(rows, name)
    there = np.flatnonzero(np.isfinite(means))
    ax.bar(there, scale * means[there], width=0.78, color=BLUE, alpha=0.45)
    for k in there:
        low, high = (scale * (means[k] + sign * 1.96 * errors[k]) for sign in (-1, 1))
        ax.plot([k, k], [low, high], color=BLUE, linewidth=1.8, solid_capstyle="butt")
    ax.grid(False, axis="x")
    ax.set_xticks(range(NUM_BINS), [f"{k / NUM_BINS:g}" for k in range(NUM_BINS)])
    ax.set_xlabel("from this timestep on (0 clean, 1 noise)")
    ax.set_ylabel(ylabel)
    return ax


def plot_margin_by_timestep(rows: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Draw the mean margin in each tenth of the path, with 95 % intervals."""
    ax = _bars(rows, "margins", 1.0, "margin (nats)", ax)
    ax.axhline(0.0, color=GREY, linewidth=1)
    return ax


def plot_gradient_share(rows: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Draw which part of the gradient comes from each tenth of the path; the dashed line is an even share."""
    ax = _bars(rows, "gradient_share", 100.0, "share of the gradient (%)", ax)
    ax.axhline(100 / NUM_BINS, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    return ax
