"""``diffpref demo``: from nothing to an aligned model, on the bundled tiny SDXL."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    parser.add_argument(
        "--label",
        nargs="+",
        metavar="SCORE",
        help="the score that makes the training pairs, or several that do together; not given: the recipe's, pickscore",
    )
    parser.add_argument(
        "--combine",
        choices=("weighted_sum", "zscore", "win_fraction", "strict_win_fraction", "consensus"),
        help="how several scores become one, see data.combine (default: zscore)",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    given = parser.parse_args(list(argv))
    from diffpref.loops import load_alignment

    recipe = load_alignment(given.recipe, {"output": given.output, "seed": given.seed, **_label(given)})
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


def _label(given: argparse.Namespace) -> dict[str, Any]:
    """Return what the recipe is to label by, where that was said."""
    found: dict[str, Any] = {}
    if given.label:
        found["training.data.score"] = given.label if len(given.label) > 1 else given.label[0]
    if given.combine:
        found["training.data.combine"] = given.combine
    return found
