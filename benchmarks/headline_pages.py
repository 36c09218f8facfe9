"""The page of `headline_methods.py`, with its plot, pictures and clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from headline_data import texts_of
from headline_table import ALL, Cells, Found, curve_point, page
from headline_tracks import TRACKS
from matplotlib.figure import Figure

from diffpref.core.files import read_json, write_atomic
from diffpref.core.media import Clip
from diffpref.plotting import labelled_grid
from diffpref.plotting.canvas import BLUE, GREY, ORANGE
from diffpref.plotting.clips import Strip, encode_gif, strip_sheet

__all__ = ["plot", "write_pages"]

COLOURS = (BLUE, ORANGE, GREY)
SHOWN = 4
"""Captions whose samples are in the page."""


def plot(found: Mapping[str, Cells]) -> Figure:
    """Return the differences of all rows with their intervals, and the curves against forwards and updates."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, *others = figure.subplots(1, 3)
    labels = []
    for name, cells in found.items():
        for row in TRACKS[name].rows:
            right, place = cells.difference(row), len(labels)
            left.plot([100 * right.low, 100 * right.high], [place, place], color=BLUE if right.low > 0 else GREY)
            left.plot(100 * right.mean, place, "o", color=BLUE if right.low > 0 else GREY)
            labels.append(f"{name}: {row}")
    left.set_yticks(range(len(labels)), labels, fontsize=8)
    left.set_ylim(len(labels) - 0.5, -0.5)
    left.axvline(0, color=GREY, linewidth=1)
    left.set_xlabel("all facts right: result minus base, points")
    cells, track = found["image"], TRACKS["image"]
    curved = [name for name, row in track.rows.items() if row.curve]
    for axes, key in zip(others, ("forwards", "updates"), strict=True):
        for row, colour in zip(curved, COLOURS, strict=False):
            marks = list(cells.results["runs"][row][cells.seeds[0]]["marks"])
            x = [0.0, *(float(np.mean([one[key] for one in cells.judged(row, mark)])) for mark in marks)]
            points = [Found(0, 0, 0), *(curve_point(track, cells, row, mark) for mark in marks)]
            axes.plot(x, [100 * point.mean for point in points], "o-", color=colour, label=row)
            low, high = ([100 * getattr(point, end) for point in points] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.12)
        axes.set_xlabel(key)
        axes.set_ylabel("image track: difference, points")
        axes.legend(fontsize=8)
    return figure


def _draw_samples(name: str, cells: Cells, work: Path, results: Path) -> None:
    """Write what base and results draw for the first captions of the first seed."""
    track, seed = TRACKS[name], cells.seeds[0]
    folders = {"base": work / name / "samples" / seed}
    for row in track.rows:
        run = cells.results["runs"][row][seed]
        run_folder = work / name / "runs" / row / f"seed{seed}_beta{run['beta']:g}_lr{run['rate']:g}"
        folders[row] = run_folder / f"at_{ALL}"
    if not all((folder / "samples.npy").exists() for folder in folders.values()):
        return
    drawn = {row: np.load(folder / "samples.npy", allow_pickle=False) for row, folder in folders.items()}
    prompts = texts_of(track.judged_on)[:SHOWN]
    picks = [number * track.draws for number in range(SHOWN)]
    if drawn["base"].ndim == 4:
        rows = [
            (prompt, [samples[pick] for samples in drawn.values()]) for prompt, pick in zip(prompts, picks, strict=True)
        ]
        labelled_grid(rows, tile=96, heads=list(drawn)).save(results / f"{name}.png")
        return
    strips = [
        (prompt, [Strip(row, Clip(samples[pick], 8.0)) for row, samples in drawn.items()])
        for prompt, pick in zip(prompts, picks, strict=True)
    ]
    strip_sheet(strips, side=44).save(results / f"{name}.png")
    frames = [
        labelled_grid(
            [
                (prompt, [samples[pick][k] for samples in drawn.values()])
                for prompt, pick in zip(prompts, picks, strict=True)
            ],
            tile=96,
            heads=list(drawn),
        )
        for k in range(drawn["base"].shape[1])
    ]
    write_atomic(results / f"{name}.gif", encode_gif(frames, 8.0))


def write_pages(results: Path, work: Path, told: str) -> None:
    """Write the page of all tracks that have numbers, with plot and pictures where their samples are at hand."""
    found = {name: read_json(results / f"{name}.json") for name in TRACKS if (results / f"{name}.json").exists()}
    cells = {name: Cells(one, TRACKS[name].draws) for name, one in found.items()}
    cells = {name: one for name, one in cells.items() if one.seeds}
    title, _, rest = told.partition("\n")
    findings = results / "findings.md"
    text = f"# {title}\n{rest}\n" + (findings.read_text() + "\n" if findings.exists() else "")
    if "image" in cells:
        plot(cells).savefig(results / "differences.png", dpi=110, facecolor="white")
        text += "![Differences with their intervals, and learning curves](headline_methods/differences.png)\n\n"
    for name, one in cells.items():
        _draw_samples(name, one, work, results)
        text += page(name, TRACKS[name], one.results)
    write_atomic(results.with_suffix(".md"), text.rstrip() + "\n")
