"""Objectives as pictures: lines against the margin, and where each pushes the two log-ratios of a pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from diffpref.plotting.canvas import BLUE, GREY, INK, ORANGE, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_lines", "plot_push"]

# Okabe & Ito (2008), without the yellow that vanishes on white; dashes tell them apart in print
COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#56b4e9", "#e69f00", INK, GREY)
DASHES = ((0, ()), (0, (5, 2)), (0, (2, 2)), (0, (7, 2, 2, 2)))


def plot_lines(
    x: np.ndarray, lines: Mapping[str, np.ndarray], *, xlabel: str, ylabel: str, ax: Axes | None = None
) -> Axes:
    """Draw several lines over one axis, each with its name in the legend.

    Args:
        x: (N,).
        lines: name -> (N,) values.
        xlabel: with the unit.
        ylabel: with the unit.
        ax: where to draw; a new figure by default.
    """
    ax = new_axes() if ax is None else ax
    ax.axvline(0, color=GREY, linewidth=0.8)
    for number, (name, values) in enumerate(lines.items()):
        round_, place = divmod(number, len(COLOURS))
        colour, dash = COLOURS[place], DASHES[(place + round_) % len(DASHES)]
        ax.plot(x, values, color=colour, linestyle=dash, linewidth=1.8, label=name)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend(frameon=False, fontsize=9, labelcolor=INK)
    return ax


def plot_push(
    chosen: np.ndarray,
    rejected: np.ndarray,
    chosen_gradient: np.ndarray,
    rejected_gradient: np.ndarray,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw which way descent moves the log-ratios of a pair, an arrow at each point; longer is stronger.

    Args:
        chosen: (N,) log-ratios of the chosen sample, nats.
        rejected: (N,) the same of the rejected one.
        chosen_gradient: (N,) d loss / d chosen.
        rejected_gradient: (N,) d loss / d rejected.
        title: such as the objective's name.
        ax: where to draw; a new figure by default.
    """
    ax = new_axes(3.4, 3.2) if ax is None else ax
    strength = np.hypot(chosen_gradient, rejected_gradient)
    ax.quiver(
        chosen,
        rejected,
        -chosen_gradient,
        -rejected_gradient,
        color=BLUE,
        scale=strength.max() * 9 or None,
        width=0.008,
    )
    limits = min(chosen.min(), rejected.min()), max(chosen.max(), rejected.max())
    ax.plot(limits, limits, color=ORANGE, linewidth=1, linestyle=(0, (4, 3)))  # a margin of 0
    ax.set_xlabel("chosen log-ratio (nats)")
    ax.set_ylabel("rejected log-ratio (nats)")
    ax.set_title(title, fontsize=9.5, color=INK)
    return ax
