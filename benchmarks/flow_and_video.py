"""Diffusion-DPO on the bundled SD3-class and text-to-video pipelines, seed by seed.

    python benchmarks/flow_and_video.py sd3 --output runs/flow_and_video
    python benchmarks/flow_and_video.py video --output runs/flow_and_video

The pipeline draws candidates, a scorer ranks them, Diffusion-DPO learns from best against worst, and base and result
draw again for captions that gave no pair. Beta and learning rate are those of a small search with a seed of its own,
judged on a third set of captions. Every seed draws its own candidates, start and order of training, and pictures or
clips to judge; intervals are 95 %, paired, by bootstrap over captions. What an interrupted run has done is not done
again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpref.core.files import read_json, write_atomic, write_json
from diffpref.evaluation import Standings, comparison
from diffpref.evaluation.results import Comparison
from diffpref.evaluation.statistics import WinRate
from diffpref.loops import align, load_alignment

RESULTS = Path(__file__).with_suffix(".json")
HEADER = "| seed | all facts right, base -> aligned | difference, points | facts: win rate | judges: win rate |\n"
SEARCH_HEADER = "| beta | learning rate | all facts right, base -> aligned | difference, points |\n"
SEARCH_SEED = 100


@dataclass(frozen=True)
class Kind:
    """What is aligned.

    Args:
        title: of the table.
        recipe: of a round; beta and learning rate in it are the search's choice.
        searched_on: captions that neither train nor are among the recipe's to judge.
        grid: pairs of beta and learning rate.
        search_steps: updates of a setting of the search.
    """

    title: str
    recipe: str
    searched_on: str
    grid: tuple[tuple[float, float], ...]
    search_steps: int


KINDS = {
    "sd3": Kind(
        "SD3-class pipeline, pairs labelled by PickScore",
        "rounds/shapes_sd3",
        "shapes:seen:300-460",
        ((200, 3e-4), (1000, 3e-4), (1000, 1e-3)),
        60,
    ),
    "video": Kind(
        "Text-to-video pipeline, pairs labelled by the oracle of motion, which also judges",
        "rounds/shapes_video",
        "shapes_moving:seen:80-100",
        ((500, 3e-4), (2000, 3e-4), (2000, 1e-3)),
        60,
    ),
}


def setting(beta: float, rate: float) -> dict[str, Any]:
    """Return what a setting changes in a recipe."""
    return {"training.objective": [{"dpo": {"beta": beta}}], "training.optim.learning_rate": rate}


def run(kind: Kind, output: Path, changes: dict[str, Any], command: str = "") -> Comparison:
    """Run a round, or read what it found."""
    found = output / "results.json"
    if not found.exists():
        align(load_alignment(kind.recipe, {"output": str(output), **changes}), command)
    return comparison(Standings.load(found), "aligned")


def right(compared: Comparison) -> str:
    """Return the two cells about pictures or clips with all facts right."""
    found = compared.all_facts
    if found is None:
        raise SystemExit("the comparison has no facts: name an oracle among the judges")
    gain = found.difference
    points = f"{gain.estimate:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]"
    return f"{found.base_share:.1%} -> {found.aligned_share:.1%} | {points}"


def search(kind: Kind, output: Path) -> dict[str, dict[str, float]]:
    """Try every setting of the grid; all train on the same pairs."""
    shared = output / "shared"
    found = {}
    for beta, rate in kind.grid:
        folder = output / f"beta{beta:g}_lr{rate:g}"
        changes = {
            "seed": SEARCH_SEED,
            "generation.output": str(shared / "data"),
            "training.data.source": str(shared / "data"),
            "training.data.cache": str(shared / "cache"),
            "training.training.steps": kind.search_steps,
            "evaluation.prompts": kind.searched_on,
            **setting(beta, rate),
        }
        compared = run(kind, folder, changes)
        assert compared.all_facts is not None
        gain = compared.all_facts.difference.estimate
        found[f"{beta:g} | {rate:g}"] = {"beta": beta, "rate": rate, "gain": gain, "cells": right(compared)}
        print(beta, rate, right(compared), flush=True)
    return found


def row(seed: int, compared: Comparison) -> str:
    """Return one line of the table."""
    facts = compared.num_facts
    assert facts is not None
    judges = ", ".join(f"{judge.name} {rate(judge.win)}" for judge in compared.judges) or "-"
    return f"| {seed} | {right(compared)} | {rate(facts.win)} | {judges} |\n"


def rate(win: WinRate) -> str:
    """Return a win rate with its interval."""
    return f"{win.rate:.1%} [{win.low:.1%}, {win.high:.1%}]"


def write(results: dict[str, Any]) -> None:
    """Write numbers and tables."""
    write_json(RESULTS, results)
    title, _, told = (__doc__ or "").partition("\n")
    text = f"# {title}\n{told}"
    for name, found in results.items():
        kind = KINDS[name]
        text += f"\n## {kind.title}\n\n{HEADER}| --- | --- | --- | --- | --- |\n"
        text += "".join(found["rows"].values())
        chosen = found["chosen"]
        best = f"beta {chosen['beta']:g} and learning rate {chosen['rate']:g}"
        text += f"\nThe search, {kind.search_steps} updates each, chose {best}:\n\n"
        text += f"{SEARCH_HEADER}| --- | --- | --- | --- |\n"
        text += "".join(f"| {key} | {one['cells']} |\n" for key, one in found["search"].items())
    write_atomic(RESULTS.with_suffix(".md"), text)


def main() -> None:
    """Search, then run every seed; write table and numbers after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=tuple(KINDS))
    parser.add_argument("--output", type=Path, default=Path("runs/flow_and_video"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    kind, output = KINDS[given.kind], given.output / given.kind
    tried = search(kind, output / "search")
    chosen = max(tried.values(), key=lambda one: one["gain"])
    entry: dict[str, Any] = {"search": tried, "chosen": chosen, "rows": {}, "seeds": {}}
    for seed in given.seeds:
        folder = output / str(seed)
        command = f"diffpref demo --recipe {kind.recipe} --seed {seed} --output {folder}"
        compared = run(kind, folder, {"seed": seed, **setting(chosen["beta"], chosen["rate"])}, command)
        entry["rows"][str(seed)] = row(seed, compared)
        entry["seeds"][str(seed)] = {key: value for key, value in compared.to_json().items() if key != "items"}
        print(entry["rows"][str(seed)], end="", flush=True)
        write({**(read_json(RESULTS) if RESULTS.exists() else {}), given.kind: entry})


if __name__ == "__main__":
    main()
