"""Reward models trained on pictures of the bundled model: their agreement with the oracle, and a model aligned by one.

    python benchmarks/reward_training.py --output runs/reward_training --table benchmarks/reward_training.md

The bundled SDXL draws four pictures of each caption; two of one caption with different numbers of right facts, as the
oracle counts them, are a labelled pair. Scorers learn from captions of the split `seen` and are judged on captions of
the split `unseen`. One of them then labels new pictures, on which Diffusion-DPO trains with the settings of the demo;
base and aligned model draw 400 unseen captions, and the oracle judges. What has run is not run again; from nothing it
takes about 13 minutes of one core (user time: 4.5 to draw, 1.7 to train scorers, 6.3 for the round).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from diffpref.cli import main as diffpref
from diffpref.config.recipe import find_recipe
from diffpref.data import Pairs, Store, pair_view, read_store
from diffpref.evaluation.reward_quality import measure, score_pairs
from diffpref.ranking import calibrate
from diffpref.rewards import load

COMMAND = "python benchmarks/reward_training.py --output runs/reward_training --table benchmarks/reward_training.md"
TRAIN, TEST, JUDGED = "shapes:seen:400", "shapes:unseen:200", "shapes:unseen:400"
DRAW = [
    "--candidates",
    "4",
    "--guidance_scales",
    "1.5",
    "--rewards",
    "oracle",
    "--batch_size",
    "50",
    "--unit_size",
    "25",
]
SEED = 5  # of the round: its pictures are none of those that the scorer saw
RUNS = {
    "head, after 10 updates": ("head", 10),
    "head": ("head", 400),
    "towers": ("bradley_terry", 150),
}
"""Run -> the bundled recipe and its updates."""
LABELS = "head"


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description="train reward models on the shapes world and align a model by one")
    parser.add_argument("--output", required=True, type=Path, help="folder of everything")
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    given = parser.parse_args()
    folder = given.output
    for name, prompts in (("train", TRAIN), ("test", TEST)):
        if not (folder / name / "manifest.json").exists():
            call("generate", "data/shapes", "--prompts", prompts, *DRAW, "--output", str(folder / name))
    for name, (recipe, steps) in RUNS.items():
        run = folder / slug(name)
        if not (run / "reward.json").exists():
            source = ["--data.source", str(folder / "train"), "--data.cache", str(folder / "features")]
            call(
                "reward",
                "train",
                f"rewards/shapes/{recipe}",
                *source,
                "--training.steps",
                str(steps),
                "--output",
                str(run),
            )
    lines = agreement(folder)
    align(folder)
    lines += aligned(folder / "round" / "results.json")
    lines += ["", (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip()]
    text = "\n".join([f"# {(__doc__ or '').partition(chr(10))[0]}", "", f"`{COMMAND}`", "", *lines]) + "\n"
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")


def slug(name: str) -> str:
    return name.replace(", ", "_").replace(" ", "_")


def call(*words: str) -> None:
    """Run a command of diffpref."""
    if diffpref(list(words)):
        raise SystemExit(f"diffpref {' '.join(words)} failed")


def agreement(folder: Path) -> list[str]:
    """Return the table of scorers on pairs of unseen captions."""
    store = read_store(folder / "test")
    pairs = pair_view(store, "all_pairs", "oracle")
    rows: list[tuple[str, Any]] = [
        ("bundled CLIP, as it is", load("clip", "bundled:shapes-clip")),
        ("bundled PickScore", load("pickscore", "bundled:shapes-pickscore")),
        *((name, load("trained", str(folder / slug(name)))) for name in RUNS),
    ]
    lines = [
        f"{len(pairs):,} pairs of {len(store):,} unseen captions; the trained scorers learnt from other ones.",
        "",
        "| scorer | agrees with the oracle | 95 % interval | calibration error | with a fitted scale |",
        "|---|---|---|---|---|",
    ]
    notes = [
        "",
        "The head begins as a coin toss, its last layer zeros, on frozen towers of the bundled CLIP; `towers` begins at"
        " that CLIP itself, which so few pairs do not make better.",
    ]
    return [*lines, *(row(name, reward, store, pairs) for name, reward in rows), *notes]


def row(name: str, reward: Any, store: Store, pairs: Pairs) -> str:
    """Return the cells of a scorer; the scale is fitted on other captions than those that it is judged on."""
    found = score_pairs(reward, store, pairs)
    told = measure(found)
    gaps = [(gap, 0.0) for gap in found.gaps]
    fitted = calibrate(
        name, "1", gaps, found.labels, [pair.prompt for pair in pairs], scale_before=reward.info.pair_scale
    )
    interval = f"{told.low:.3f} - {told.high:.3f}"
    return f"| {name} | {told.decided:.3f} | {interval} | {told.calibration_error:.3f} | {fitted.error_after:.3f} |"


def align(folder: Path) -> None:
    """Run the demo's round with pictures labelled by the trained head."""
    if (folder / "round" / "results.json").exists():
        return
    recipe = yaml.safe_load(find_recipe("rounds/shapes").read_text(encoding="utf-8"))
    recipe["generation"]["rewards"] = [{"trained": {"path": str(folder / slug(LABELS))}}]
    recipe["training"]["data"]["score"] = "trained"
    recipe["evaluation"] = {"prompts": JUDGED, "judges": ["oracle"]}
    path = folder / "round.yaml"
    path.write_text(yaml.safe_dump({"seed": SEED, **recipe}), encoding="utf-8")
    call("demo", "--recipe", str(path), "--seed", str(SEED), "--output", str(folder / "round"))


def aligned(path: Path) -> list[str]:
    """Return what the oracle says of the aligned model."""
    told = json.loads(path.read_text(encoding="utf-8"))
    facts, whole = told["num_facts"], told["all_facts"]
    gap, share = facts["difference"], whole["difference"]
    shares = f"{100 * whole['base_share']:.1f} % -> {100 * whole['aligned_share']:.1f} %"
    return [
        "",
        f"Aligned with the labels of '{LABELS}' (300 captions x 4 new pictures, 200 updates of 16 pairs), on"
        f" {told['num_pairs']} pictures of unseen captions each:",
        "",
        "| by the oracle | base -> aligned | difference | 95 % paired interval |",
        "|---|---|---|---|",
        f"| right facts of 6 | {facts['base_mean']:.3f} -> {facts['aligned_mean']:.3f} | {gap['estimate']:+.3f} |"
        f" {interval(gap)} |",
        f"| all facts right | {shares} | {share['estimate']:+.1f} points | {interval(share)} |",
        "",
        f"The aligned picture has more right facts in {facts['win']['wins']} of {told['num_pairs']}, fewer in"
        f" {facts['win']['losses']}.",
    ]


def interval(found: dict[str, Any]) -> str:
    return f"{found['low']:+.3f} .. {found['high']:+.3f}"


if __name__ == "__main__":
    main()
