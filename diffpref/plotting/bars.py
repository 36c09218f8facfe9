"""Win rates with their intervals, and the shares of facts before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffpref.core.errors import ShapeError
from diffpref.plotting.canvas import BLUE, GREY, INK, LINE, ORANGE, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_fact_shares", "plot_win_rates"]


def _rows(ax: Axes | None, names: Sequence[str], *columns: Sequence[float]) -> Axes:
    """Return axes with one labelled line a name, the first on top."""
    if {len(column) for column in columns} != {len(names)}:
        raise ShapeError(f"expected {len(names)} values for each column, got {[len(column) for column in columns]}")
    ax = new_axes(5.4, 0.7 + 0.42 * max(len(names), 2)) if ax is None else ax
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0)
    return ax


def plot_win_rates(
    names: Sequence[str],
    rates: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    ax: Axes | None = None,
) -> Axes:
    """Draw win rates as bars from the 50 % line, with confidence intervals.

    Args:
        names: one a judge.
        rates: 0..1.
        lows: lower ends of the intervals.
        highs: upper ends.
        ax: where to draw; a new figure by default.
    """
    ax = _rows(ax, names, rates, lows, highs)
    for row, (rate, low, high) in enumerate(zip(rates, lows, highs, strict=True)):
        colour = BLUE if rate >= 0.5 else ORANGE
        ax.barh(row, 100 * rate - 50, left=50, height=0.5, color=colour, alpha=0.35)
        ax.plot([100 * low, 100 * high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        ax.plot(100 * rate, row, "o", color=colour, markersize=6)
        ax.annotate(
            f"{100 * rate:.1f} %",
            (100 * high, row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=9,
        )
    ax.axvline(50, color=GREY, linewidth=1)
    ax.set_xlim(0, 100)
    ax.set_xlabel("aligned wins (% of pairs, ties count one half)")
    return ax


def plot_fact_shares(
    names: Sequence[str],
    base: Sequence[float],
    aligned: Sequence[float],
    ax: Axes | None = None,
    *,
    labels: tuple[str, str] = ("base", "aligned"),
) -> Axes:
    """Draw how often each fact holds, base and aligned on one line.

    Args:
        names: one a fact.
        base: shares 0..1.
        aligned: shares 0..1.
        ax: where to draw; a new figure by default.
        labels: what the two are called.
    """
    ax = _rows(ax, names, base, aligned)
    for row, (before, after) in enumerate(zip(base, aligned, strict=True)):
        ax.plot([100 * before, 100 * after], [row, row], color=LINE, linewidth=3, solid_capstyle="round", zorder=1)
    rows = list(range(len(names)))
    # Shape tells the two apart as well as colour: a hollow square before, a full circle after.
    ax.scatter([100 * b for b in base], rows, marker="s", s=36, facecolors="none", edgecolors=ORANGE, label=labels[0])
    ax.scatter([100 * a for a in aligned], rows, marker="o", s=42, color=BLUE, label=labels[1])
    ax.set_xlim(0, 100)
    ax.set_xlabel("pictures in which the fact holds (%)")
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    return ax
