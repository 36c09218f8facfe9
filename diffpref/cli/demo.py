"""``diffpref demo``: from nothing to an aligned model, on the bundled tiny SDXL."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from diffpref.cli._reporting import tell_progress

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Generate, score, train, evaluate, report; then say where everything lies."""
    parser = argparse.ArgumentParser(
        prog="diffpref demo", description="Align the bundled tiny SDXL, from generation to the report."
    )
    parser.add_argument("--output", default="runs/demo", help="folder of the round (default: runs/demo)")
    parser.add_argument("--seed", type=int, default=0, help="of every stage (default: 0)")
    parser.add_argument("--recipe", default="rounds/shapes", help="a round's recipe (default: the bundled one)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    given = parser.parse_args(list(argv))
    from diffpref.loops import load_alignment

    recipe = load_alignment(given.recipe, {"output": given.output, "seed": given.seed})
    tell_progress()
    from diffpref.evaluation.summary import print_summary
    from diffpref.loops import align

    comparison = align(recipe, command=shlex.join(["diffpref", "demo", *argv]))
    if given.json:
        print((Path(recipe.output) / "results.json").read_text(encoding="utf-8"))
        return 0
    print_summary(comparison)
    folder = Path(recipe.output)
    print(f"\nreport: {folder / 'report.html'}\npictures: {folder / 'grid.png'}\nLoRA: {folder / 'run' / 'lora'}")
    return 0
