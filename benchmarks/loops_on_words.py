"""Every bundled loop of the words world, and what it has made of the decoder, on held-out instructions.

    python benchmarks/loops_on_words.py --output runs/loops --table benchmarks/loops_on_words.md

A loop's policy and the initial model answer the same held-out instructions from the same seeds at temperature 1; the
judge of the words world counts who does better. The interval is a bootstrap over instructions. What has run is not run
again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from diffpref.config import recipe_names
from diffpref.loops import load_loop, run_loop
from diffpref.loops.players import Players
from diffpref.loops.stage import Drawer, Iterate
from diffpref.sampling import TextSettings
from diffpref.words import instructions, score

PROMPTS, BOOTSTRAPS = 500, 2000


def main() -> None:
    """Run the loops and write the table."""
    parser = argparse.ArgumentParser(description="run every bundled loop of the words world and judge it")
    parser.add_argument("--output", required=True, help="folder of the loops")
    parser.add_argument("--table", help="Markdown file to write")
    parser.add_argument("--only", nargs="*", help="names of loops")
    given = parser.parse_args()
    rows = [
        "| loop | rounds | right, initial | right, after | win rate over the initial model | 95 % interval | minutes |"
    ]
    rows += ["|---|---|---|---|---|---|---|"]
    for name in recipe_names():
        if not name.startswith("loops/words/") or (given.only and name.split("/")[-1] not in given.only):
            continue
        started = time.perf_counter()
        recipe = load_loop(name, {"output": str(Path(given.output) / name.split("/")[-1])})
        progress = run_loop(recipe)
        minutes = (time.perf_counter() - started) / 60
        found = judge(recipe.model, progress.stage_of(progress.round).policy)
        rows.append(f"| {name.split('/')[-1]} | {recipe.rounds} | {found} | {minutes:.1f} |")
        print(rows[-1], flush=True)
    if given.table:
        head = (__doc__ or "").partition("\n")[0]
        Path(given.table).write_text(f"# {head}\n\n" + "\n".join(rows) + "\n", encoding="utf-8")


def judge(model: Any, policy: Iterate) -> str:
    """Return the cells of a policy's row."""
    asked = instructions("held_out", PROMPTS)
    players = Players(model, "cpu", [policy, Iterate()])
    settings = TextSettings(max_new_tokens=16, batch_size=100)
    prompts, seeds = [str(one) for one in asked], list(range(PROMPTS))
    scores = []
    for iterate in (Iterate(), policy):
        answers = players.drawing(Drawer(iterate, 1), settings)(prompts, seeds)
        scores.append(np.array([score(answer, one) for answer, one in zip(answers, asked, strict=True)]))
    before, after = scores
    wins = (after > before) + 0.5 * (after == before)
    draws = np.random.default_rng(0).integers(PROMPTS, size=(BOOTSTRAPS, PROMPTS))
    low, high = np.quantile(wins[draws].mean(axis=1), [0.025, 0.975])
    return f"{(before == 1).mean():.3f} | {(after == 1).mean():.3f} | {wins.mean():.3f} | {low:.3f} - {high:.3f}"


if __name__ == "__main__":
    main()
