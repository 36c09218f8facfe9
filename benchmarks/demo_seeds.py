"""The demo for several seeds, as a table: ``python benchmarks/demo_seeds.py --output runs/seeds``.

Every seed draws its own candidates, start and order of training, and pictures to judge. The captions that are judged
gave no training pair. The table goes to ``benchmarks/demo_seeds.md``, the numbers to ``benchmarks/demo_seeds.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from diffpref.evaluation.results import Comparison
from diffpref.loops import align, load_alignment

HEADER = (
    "| seed | all facts right, base -> aligned | difference, points | facts: win rate | ties | hps: win rate |\n"
    "| --- | --- | --- | --- | --- | --- |\n"
)


def row(seed: int, comparison: Comparison) -> str:
    """Return one line of the table."""
    right, facts, judge = comparison.all_facts, comparison.num_facts, comparison.judges[0]
    if right is None or facts is None:
        raise SystemExit("the comparison has no facts: name the oracle among the judges")
    gain = right.difference
    return (
        f"| {seed} | {right.base_share:.1%} -> {right.aligned_share:.1%} |"
        f" {gain.estimate:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}] |"
        f" {facts.win.rate:.1%} [{facts.win.low:.1%}, {facts.win.high:.1%}] |"
        f" {facts.win.ties} of {len(comparison.items)} |"
        f" {judge.win.rate:.1%} [{judge.win.low:.1%}, {judge.win.high:.1%}] |\n"
    )


def main() -> None:
    """Run every seed and write table and numbers after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    rows, numbers = "", dict[str, Any]()
    for seed in given.seeds:
        output = str(given.output / str(seed))
        recipe = load_alignment("rounds/shapes", {"output": output, "seed": seed})
        comparison = align(recipe, command=f"diffpref demo --seed {seed} --output {output}")
        rows += row(seed, comparison)
        numbers[str(seed)] = {key: value for key, value in comparison.to_json().items() if key != "items"}
        print(rows.splitlines()[-1], flush=True)
        Path("benchmarks/demo_seeds.md").write_text(f"# The demo, seed by seed\n\n{__doc__}\n{HEADER}{rows}")
        Path("benchmarks/demo_seeds.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
