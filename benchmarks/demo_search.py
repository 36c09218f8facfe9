"""The small search behind the demo's beta and learning rate: ``python benchmarks/demo_search.py --output runs/search``.

Every setting trains on the pairs of the demo and is judged on 160 captions that belong neither to the demo's training
prompts nor to its evaluation: ``shapes:seen:300-460``. The candidates are drawn and scored once; a setting that was
tried before is not tried again. The table goes to ``benchmarks/demo_search.md``.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from diffpref.config import load_yaml
from diffpref.config.recipe import find_recipe
from diffpref.evaluation import Standings, comparison
from diffpref.loops import align, load_alignment
from diffpref.training.log import read_metrics

CAPTIONS = "shapes:seen:300-460"
HEADER = (
    "| beta | learning rate | steps | all facts right | facts win rate | hps win rate | "
    "winner error vs reference, last 20 | accuracy, last 20 |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def trial(output: Path, beta: float, rate: float, steps: int, seed: int) -> str:
    """Run one setting; return its row of the table."""
    given = load_yaml(find_recipe("rounds/shapes"))
    name = f"beta{beta:g}_lr{rate:g}_steps{steps}"
    training = {
        **given["training"],
        "output": str(output / name),
        "objective": [{"dpo": {"beta": beta}}],
        "optim": {**given["training"]["optim"], "learning_rate": rate},
        "training": {**given["training"]["training"], "steps": steps},
    }
    evaluation = {**given["evaluation"], "prompts": CAPTIONS, "seeds": 2}
    overrides = {"output": str(output), "seed": seed, "training": training, "evaluation": evaluation}
    found = output / name / "results.json"
    if not found.exists():
        align(load_alignment("rounds/shapes", overrides))
        Standings.load(output / "results.json").save(found)
    compared = comparison(Standings.load(found), "aligned")
    last = read_metrics(output / name / "metrics.jsonl")[-20:]
    error = sum(row["errors/chosen_vs_reference"] for row in last) / len(last)
    accuracy = sum(row["rewards/accuracies"] for row in last) / len(last)
    right, facts, judge = compared.all_facts, compared.num_facts, compared.judges[0]
    return (
        f"| {beta:g} | {rate:g} | {steps} | {right.base_share:.1%} -> {right.aligned_share:.1%} |"
        f" {facts.win.rate:.1%} | {judge.win.rate:.1%} | {error:+.5f} | {accuracy:.2f} |\n"
    )


def main() -> None:
    """Try every combination and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/search"))
    parser.add_argument("--table", type=Path, default=Path("benchmarks/demo_search.md"))
    parser.add_argument("--beta", type=float, nargs="+", default=[1000, 2000, 4000])
    parser.add_argument("--learning-rate", type=float, nargs="+", default=[1e-4, 2e-4, 3e-4])
    parser.add_argument("--steps", type=int, nargs="+", default=[200])
    parser.add_argument("--seed", type=int, default=100)
    given = parser.parse_args()
    rows = ""
    for beta, rate, steps in itertools.product(given.beta, given.learning_rate, given.steps):
        rows += trial(given.output, beta, rate, steps, given.seed)
        print(rows.splitlines()[-1], flush=True)
        given.table.write_text(f"# The demo's settings\n\n{__doc__}\n{HEADER}{rows}", encoding="utf-8")


if __name__ == "__main__":
    main()
