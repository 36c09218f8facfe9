"""What is drawn of scorers: how often they agree, how scores spread, and whether their probabilities hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from diffpref.core.errors import ShapeError
from diffpref.plotting.canvas import BLUE, GREY, INK, ORANGE, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from diffpref.ranking import ReliabilityBin

__all__ = ["plot_agreement", "plot_distributions", "plot_reliability"]


def plot_agreement(names: Sequence[str], shares: Sequence[Sequence[float]], ax: Axes | None = None) -> Axes:
    """Draw how often every two scorers order a pair of candidates alike, as a matrix of numbers.

    Args:
        names: K scorers.
        shares: (K, K), 0..1; NaN where two scorers have no pair that both order. 50 % is chance and has no colour,
            more is blue, less is orange.
        ax: where to draw; a new figure by default.

    Raises:
        ShapeError: not one row and one column a name.
    """
    if [len(row) for row in shares] != [len(names)] * len(names):
        raise ShapeError(f"expected {len(names)} x {len(names)} shares, got rows of {[len(row) for row in shares]}")
    from matplotlib.patches import Rectangle

    side = 1.4 + 0.75 * len(names)
    ax = new_axes(side + 0.8, side) if ax is None else ax
    for row, values in enumerate(shares):
        for column, share in enumerate(values):
            known = not math.isnan(share)
            colour = BLUE if known and share >= 0.5 else ORANGE
            strength = min(0.75, 1.5 * abs(share - 0.5)) if known and row != column else 0.0
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=strength, edgecolor="none"))
            text = "" if row == column else f"{100 * share:.0f} %" if known else "none"
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color=INK)
    ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(False)
    ax.tick_params(length=0)
    ax.set_xlabel("pairs of candidates ordered alike (%)")
    return ax


def plot_distributions(
    groups: Mapping[str, Sequence[float]], *, xlabel: str, num_bins: int = 20, ax: Axes | None = None
) -> Axes:
    """Draw how the scores of several groups are spread, as histograms over the same bins.

    Args:
        groups: name -> scores, of any number; NaN and infinite ones are left out. Each group adds up to 100 %, so that
            groups of different sizes can be compared.
        xlabel: what is scored, with the unit.
        num_bins: of equal widths, from the smallest score of all groups to the largest.
        ax: where to draw; a new figure by default.

    Raises:
        ShapeError: a group without a finite score.
    """
    finite = {name: [score for score in scores if math.isfinite(score)] for name, scores in groups.items()}
    if empty := [name for name, scores in finite.items() if not scores]:
        raise ShapeError(f"expected finite scores in every group, got none in '{empty[0]}'")
    ax = new_axes(4.4, 3.0) if ax is None else ax
    everything = [score for scores in finite.values() for score in scores]
    edges = np.histogram_bin_edges(everything, num_bins)
    styles = [(BLUE, "-"), (ORANGE, "--"), (INK, ":"), (GREY, "-.")]
    for number, (name, scores) in enumerate(finite.items()):
        colour, line = styles[number % len(styles)]
        shares = 100 * np.histogram(scores, edges)[0] / len(scores)
        ax.stairs(shares, edges, fill=True, color=colour, alpha=0.15)
        ax.stairs(shares, edges, color=colour, linestyle=line, linewidth=1.6, label=f"{name} ({len(scores)})")
    ax.set_xlabel(xlabel)
    ax.set_ylabel("share of the group (%)")
    ax.legend(frameon=False, fontsize=9, labelcolor=INK)
    return ax


def plot_reliability(curves: Mapping[str, Sequence[ReliabilityBin]], ax: Axes | None = None) -> Axes:
    """Draw what was predicted against what was observed; a calibrated score lies on the diagonal.

    Args:
        curves: name, such as ``before`` and ``after`` -> bins of `diffpref.ranking.reliability`; empty bins are left
            out, and larger points stand for more pairs.
        ax: where to draw; a new figure by default.
    """
    ax = new_axes(4.4, 3.6) if ax is None else ax
    ax.plot([50, 100], [50, 100], color=GREY, linewidth=1)
    total = max((sum(one.count for one in bins) for bins in curves.values()), default=0) or 1
    styles = [(ORANGE, "s"), (BLUE, "o"), (INK, "^"), (GREY, "D")]
    for number, (name, bins) in enumerate(curves.items()):
        colour, marker = styles[number % len(styles)]
        filled = [one for one in bins if one.count]
        x, y = (
            [100 * value for value in column]
            for column in zip(*((b.predicted, b.observed) for b in filled), strict=True)
        )
        ax.plot(x, y, color=colour, linewidth=1.2, label=name)
        ax.scatter(x, y, s=[12 + 160 * b.count / total for b in filled], color=colour, marker=marker, alpha=0.7)
    ax.set_xlim(49, 101)
    ax.set_ylim(min(49.0, ax.get_ylim()[0]), 101)
    ax.set_xlabel("predicted to win (%)")
    ax.set_ylabel("won (%)")
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")
    return ax
