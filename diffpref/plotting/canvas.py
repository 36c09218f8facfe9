"""What all plots share: colours, an empty axes, and the two forms in which a figure leaves (PNG, SVG inside a page)."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BLUE", "GREY", "INK", "LINE", "ORANGE", "figure_of", "new_axes", "save_png", "to_svg"]

# Blue and vermilion of Okabe & Ito (2008) can be told apart with every kind of colour vision.
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#7a7f87"
INK, LINE = "#24292f", "#d8dce1"
PAGE_COLOURS = {
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREY: "var(--grey)",
    INK: "var(--ink)",
    LINE: "var(--line)",
}
EXTERNAL = re.compile(
    r"""<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|\sxmlns(:\w+)?="[^"]*"|<style.*?</style>|<!--.*?-->""", re.S
)


def new_axes(width: float = 5.4, height: float = 3.0) -> Axes:
    """Return an empty, quiet axes on a figure of its own.

    Args:
        width: of the figure, inches.
        height: of the figure, inches.
    """
    from matplotlib.figure import Figure

    axes = Figure(figsize=(width, height), layout="constrained").add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(colors=INK, labelsize=9, color=LINE)
    axes.grid(True, color=LINE, linewidth=0.7, alpha=0.6)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_color(INK)
        label.set_fontsize(9.5)
    return axes


def figure_of(axes: Axes) -> Figure:
    """Return the figure that an axes is part of."""
    from matplotlib.figure import Figure

    figure = axes.get_figure()
    if not isinstance(figure, Figure):
        raise TypeError(f"expected axes on a Figure, got {type(figure).__name__}")
    return figure


def save_png(axes: Axes, path: Path | io.BytesIO, dpi: int = 160) -> None:
    """Write the axes' figure as PNG, on white."""
    figure_of(axes).savefig(path, format="png", dpi=dpi, facecolor="white")


def to_svg(axes: Axes, description: str) -> str:
    """Return the axes' figure as an ``<svg>`` element for use inside an HTML page.

    It scales with the page, takes its colours from the page's custom properties ``--ink``, ``--line``, ``--blue``,
    ``--orange`` and ``--grey`` (so it fits light and dark), keeps text as text, and refers to nothing outside.

    Args:
        axes: one of the axes of the figure.
        description: what the picture shows, for those who cannot see it.
    """
    import html

    import matplotlib

    buffer = io.StringIO()
    # The salt keeps the ids of several figures on one page apart, and the same from run to run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure_of(axes).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = EXTERNAL.sub("", buffer.getvalue()).strip()
    for colour, variable in PAGE_COLOURS.items():
        text = text.replace(colour, variable)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # nothing refers to groups, and two figures would share their ids
    head = f'<svg class="plot" role="img" aria-label="{html.escape(description, quote=True)}"'
    return re.sub(r'^<svg width="[^"]*" height="[^"]*"', lambda _: head, text)
