"""Curves of a run against its steps, from the rows of ``metrics.jsonl``.

A light line is what was measured at each step, the heavy one its running mean, the band the mean's 95 % interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffpref.plotting.canvas import BLUE, GREY, INK, ORANGE, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_accuracy",
    "plot_errors",
    "plot_logit_scale",
    "plot_loss",
    "plot_margin",
    "plot_series",
    "running_mean",
    "series",
]

MetricRows = Sequence[Mapping[str, Any]]


def series(rows: MetricRows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps at which a metric was logged with a finite value, and the values."""
    pairs = [(row["step"], row[name]) for row in rows if row.get(name) is not None and math.isfinite(row[name])]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def running_mean(values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centred running mean and its standard error; the window shrinks towards both ends.

    Args:
        values: (N,).
        window: width in values.
    """
    half = max(window, 1) // 2
    position = np.arange(len(values))
    low, high = np.maximum(position - half, 0), np.minimum(position + half + 1, len(values))
    count = high - low
    total = np.concatenate([[0.0], np.cumsum(values)])
    square = np.concatenate([[0.0], np.cumsum(values**2)])
    mean = (total[high] - total[low]) / count
    variance = np.maximum((square[high] - square[low]) / count - mean**2, 0.0)  # rounding may dip below zero
    return mean, np.sqrt(variance / count)


def plot_series(
    rows: MetricRows,
    names: Mapping[str, str],
    *,
    ylabel: str,
    baseline: float | None = None,
    window: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw metrics against the step.

    Args:
        rows: each with ``step`` and metrics; a metric may be absent from some.
        names: metric -> its label in the legend; the colours are blue, then vermilion.
        ylabel: with the unit.
        baseline: a value to compare with, drawn dashed.
        window: of the running mean, in logged values; a twentieth of them by default.
        ax: where to draw; a new figure by default.
    """
    ax = new_axes() if ax is None else ax
    if baseline is not None:
        ax.axhline(baseline, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    for (name, label), colour in zip(names.items(), (BLUE, ORANGE, GREY), strict=False):
        steps, values = series(rows, name)
        if not len(values):
            continue
        mean, error = running_mean(values, window or max(1, len(values) // 20))
        ax.plot(steps, values, color=colour, linewidth=0.7, alpha=0.3)
        ax.fill_between(steps, mean - 1.96 * error, mean + 1.96 * error, color=colour, alpha=0.15, linewidth=0)
        ax.plot(steps, mean, color=colour, linewidth=1.8, label=label)
    ax.set_xlabel("step (updates)")
    ax.set_ylabel(ylabel)
    if len(names) > 1 and ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=9, labelcolor=INK)
    return ax


def plot_loss(rows: MetricRows, ax: Axes | None = None) -> Axes:
    """Draw the loss."""
    return plot_series(rows, {"loss": "loss"}, ylabel="loss (nats)", ax=ax)


def plot_margin(rows: MetricRows, ax: Axes | None = None) -> Axes:
    """Draw the margin between the implicit rewards of the chosen and the rejected; 0 at the start."""
    return plot_series(rows, {"rewards/margins": "margin"}, ylabel="margin (nats)", baseline=0.0, ax=ax)


def plot_accuracy(rows: MetricRows, ax: Axes | None = None) -> Axes:
    """Draw the share of training pairs whose chosen side has the higher implicit reward."""
    ax = plot_series(rows, {"rewards/accuracies": "accuracy"}, ylabel="pairs ranked right (share)", baseline=0.5, ax=ax)
    ax.set_ylim(-0.02, 1.02)
    return ax


def plot_errors(rows: MetricRows, ax: Axes | None = None) -> Axes:
    """Draw how far the denoising errors moved from the reference's.

    Alignment should raise the rejected error more than the chosen one. A chosen error that shoots up means collapse:
    the model unlearns the good pictures too, only more slowly than the bad ones.
    """
    names = {"errors/chosen_vs_reference": "chosen", "errors/rejected_vs_reference": "rejected"}
    label = "error above reference (MSE)"
    return plot_series(rows, names, ylabel=label, baseline=0.0, ax=ax)


def plot_logit_scale(rows: MetricRows, ax: Axes | None = None) -> Axes:
    """Draw the mean magnitude of the logit, beta times the difference of the log-ratios."""
    return plot_series(rows, {"logits/scale": "scale"}, ylabel="mean |logit| (nats)", baseline=0.0, ax=ax)
