"""Draw the figures of ``reading_curves.md`` from two short runs on the bundled shapes model.

``python docs/draw_curves.py [FOLDER]`` makes the data and trains both runs in FOLDER (default: runs/curves) unless they
are there, then writes the figures into ``docs/images``. On two idle cores that takes about ten minutes.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from diffpref.cli import main as diffpref
from diffpref.config import build_recipe
from diffpref.plotting import (
    new_axes,
    plot_accuracy,
    plot_errors,
    plot_gradient_share,
    plot_logit_scale,
    plot_loss,
    plot_margin_by_timestep,
)
from diffpref.plotting.step_grid import step_grid
from diffpref.training import Trainer
from diffpref.training.explain import explain_step
from diffpref.training.log import read_metrics

IMAGES = Path(__file__).parent / "images"
EXPLAINED = 176  # the update that is shown
LAYERS = "to_q to_k to_v to_out.0 proj_in proj_out ff.net.0.proj ff.net.2 time_emb_proj conv1 conv2 linear_1 linear_2"
RUNS = {
    "healthy": {"objective": [{"dpo": {"beta": 1000}}], "optim.learning_rate": 3e-4, "training.steps": 200},
    "unlearning": {
        "objective": [{"dpo": {"beta": 20}}],
        "optim.learning_rate": 1e-3,
        "training.steps": 80,
        "guards.winner_window": 10,
    },
}
"""What the two runs differ in: the second has a beta that holds nothing, and a high learning rate."""


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the metrics of a run, which is trained first where it is not there."""
    store, output = folder / "store", folder / name
    if not (store / "manifest.json").exists():
        words = ["data/shapes", "--output", str(store), "--prompts", "shapes:seen:160", "--guidance_scales", "1.5"]
        diffpref(["generate", *words])
    recipe = build_recipe(
        {
            "output": str(output),
            "model": {"family": "sdxl", "path": "bundled:shapes-sdxl"},
            "adapter": {"kind": "lora", "rank": 32, "targets": LAYERS.split()},
            "data": {"source": str(store), "score": "pickscore", "cache": str(folder / "cache")},
            "method": {"diffusion_dpo": {"empty_prompt_prob": 0.1}},
            "optim": {"warmup_steps": 10},
            "training": {"batch_size": 16, "checkpoint_every": 25},
        },
        RUNS[name],
    )
    if not (output / "lora").exists():
        Trainer(recipe).fit()
    return read_metrics(output / "metrics.jsonl")


def draw(rows: list[dict[str, Any]], drawers: list[Any], path: Path) -> None:
    """Draw plots next to each other, three a row."""
    lines = -(-len(drawers) // 3)
    figure = Figure(figsize=(13.5, 3.3 * lines), layout="constrained")
    pattern = new_axes()
    for axes, drawer in zip(figure.subplots(lines, 3, squeeze=False).flat, drawers, strict=True):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.grid(True, color=pattern.spines["left"].get_edgecolor(), linewidth=0.7, alpha=0.6)
        axes.set_axisbelow(True)
        drawer(rows, ax=axes)
    figure.savefig(path, dpi=80, facecolor="white")


def main(folder: Path) -> None:
    """Make all figures."""
    IMAGES.mkdir(exist_ok=True)
    curves = [plot_loss, plot_accuracy, plot_errors]
    draw(
        rows_of(folder, "healthy"),
        [*curves, plot_logit_scale, plot_margin_by_timestep, plot_gradient_share],
        IMAGES / "curves_healthy.png",
    )
    draw(rows_of(folder, "unlearning"), curves, IMAGES / "curves_unlearning.png")
    view = explain_step(folder / "healthy", EXPLAINED)
    largest = sorted(view.records, key=lambda record: -(record.gradient_share or 0.0))[:4]
    sheet = step_grid(replace(view, records=tuple(largest)))
    sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3), Image.Resampling.LANCZOS).save(IMAGES / "explained.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/curves"))
