"""The real command killed and started again gives the same bits as without; a signal ends it in good order.

``forked_runs.py`` runs the command in forks of one process, many for the price of one launch; what is under a launcher,
or must be in no way related, is started for itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from diffpref.core.contracts import Candidate, Judgement, PromptMedia, Record
from diffpref.data import encode_png, write_store
from diffpref.data.footage import pack_frames
from diffpref.models import registry
from diffpref.training.checkpoints import list_checkpoints, open_checkpoint
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
LAUNCHED = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m", "diffpref.train")
PATIENCE = 400  # seconds, on a machine busy with other things
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def recipe(keys: dict[str, Any], folder: Path, name: str) -> Path:
    """Write a recipe whose output is ``folder / name``."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**keys, "output": str(folder / name)}))
    return path


def run_forks(jobs: Sequence[Sequence[dict[str, Any]]], folder: Path) -> list[list[int]]:
    """Do lists of jobs; see ``forked_runs.py``."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(HERE / "forked_runs.py"), str(folder / "jobs.json")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-4000:]
    codes: list[list[int]] = json.loads(done.stdout)
    return codes


def exact(output: Path) -> list[dict[str, Any]]:
    """Return the metrics with floats in hex, without those of speed and memory."""
    return [
        {k: v.hex() if isinstance(v, float) else v for k, v in row.items() if not k.startswith("perf/")}
        for row in read_metrics(output / "metrics.jsonl")
    ]


def assert_same_bits(first: Path, second: Path) -> None:
    """Metrics, everything in the last checkpoint, and the results are equal."""
    assert exact(first) == exact(second)
    found = [open_checkpoint(list_checkpoints(output)[-1]) for output in (first, second)]
    assert found[0].step == found[1].step and found[0].counters == found[1].counters
    assert found[0].shapes.keys() == found[1].shapes.keys() >= {"policy", "optimizer"}
    for part in found[0].shapes:
        one, other = (checkpoint.part(part) for checkpoint in found)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one), part
    results = [sorted(p.relative_to(o) for p in o.glob("[lm]o*/*.safetensors")) for o in (first, second)]
    assert results[0] == results[1] != []
    for result in results[0]:
        one, other = load_file(first / result), load_file(second / result)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------- kill -9 at every kind of moment

LORA, FULL = {"adapter": {"kind": "lora", "rank": 4, "alpha": 16.0}}, {"adapter": {"kind": "full"}}
BANK, AVERAGE = {"bank": {"slots": 2}}, {"training": {"ema": {"decay": 0.9, "every": 2}}}
VARIANTS: dict[str, Sequence[dict[str, Any]]] = {
    "lora": (LORA,),
    "full": (FULL,),
    "lora, bank, average": (LORA, BANK, AVERAGE),
    "full, bank, average": (FULL, BANK, AVERAGE),
}
"""What must come back bit by bit. Each is a list of changes to the recipe."""
TEXT = "text"
"""One more variant: a language model, with an objective of its own."""
SEEDS: dict[int, tuple[Any, tuple[int, int]]] = {
    0: ("dpo", (10, 8)),  # in the middle of update 5, then in the middle of update 7
    1: ("ipo", (3, 12)),  # before the first checkpoint, then in the middle of update 6
    2: ([{"dpo": {"beta": 50}}, {"nll": {"coefficient": 0.1}}], (7, 5)),  # between two updates, twice
}
"""Seed -> objective, and the micro-batches at which the first and the second process are killed."""


def texts(folder: Path) -> dict[str, Any]:
    """Return what a run on texts changes in a recipe."""
    words = ("red", "blue", "green", "small", "round")
    rows = [
        {"id": str(n), "prompt": f"{words[n % 5]}? ", "chosen": "yes " * (1 + n % 2), "rejected": f"no {words[n % 3]}"}
        for n in range(16)
    ]
    source = folder / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": {"family": "causal_lm", "path": "bundled:words-decoder"},
        "data": {"source": str(source), "score": None, "cache": None},
        "method": "language",
        "objective": "simpo",
    }


@pytest.fixture(scope="module")
def killed(tiny_sdxl: Path, scored_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every variant under every seed, once straight and once killed twice: ``<variant>-<seed>-<straight|killed>``."""
    folder = tmp_path_factory.mktemp("killed")
    pictures = {
        "model": {"family": "sdxl", "path": str(tiny_sdxl)},
        "data": {"source": str(scored_store), "score": "oracle", "cache": str(folder / "cache")},
        "method": "diffusion_dpo",
    }
    jobs = []
    for variant, changes in {**VARIANTS, TEXT: (texts(folder), LORA)}.items():
        for seed, (objective, kills) in SEEDS.items():
            keys: dict[str, Any] = {
                **pictures,
                "seed": seed,
                "objective": objective,
                "optim": {"learning_rate": 1e-4, "schedule": "cosine"},
                "training": {"steps": 8, "batch_size": 2, "accumulation": 2, "checkpoint_every": 3},
            }
            for change in changes:
                for section, values in change.items():
                    known = keys.get(section)
                    both = isinstance(known, dict) and isinstance(values, dict)
                    keys[section] = {**known, **values} if both else values  # type: ignore[dict-item]
            if "bank" in keys:
                keys["bank"] = {**keys["bank"], "folder": str(folder / f"bank-{variant}-{seed}")}
            name = f"{variant}-{seed}"
            straight = {"words": [str(recipe(keys, folder, f"{name}-straight"))], "log": str(folder / f"{name}.log")}
            again = {**straight, "words": [str(recipe(keys, folder, f"{name}-killed"))]}
            jobs.append([*({**again, "kill_at_batch": batch} for batch in kills), again, straight])
    for codes in run_forks(jobs, folder):
        assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]
    return folder


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", [*VARIANTS, TEXT])
def test_row_01_resuming_after_kill_9_is_bit_identical(killed: Path, variant: str, seed: int) -> None:
    straight, broken = (killed / f"{variant}-{seed}-{kind}" for kind in ("straight", "killed"))
    assert [row["step"] for row in exact(straight)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert_same_bits(straight, broken)
    assert not list(broken.rglob(".*"))
    said = (killed / f"{variant}-{seed}.log").read_text()
    assert said.count("resumed from") == (1 if seed == 1 else 2)


FAMILIES = ("sd3", "unet3d", "animatediff", "svd")
"""A flow and three families of videos: one seed each, LoRA, killed in the middle of two updates."""


def clips(folder: Path) -> Path:
    """Write a store of 16 judged pairs of clips."""
    draw, records = np.random.default_rng(0), []
    for number in range(16):
        frames = [
            [("png", encode_png(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8))) for _ in range(4)] for _ in "ab"
        ]
        sides = tuple(Candidate(bytes=pack_frames(several, fps=4.0)) for several in frames)
        told = (PromptMedia(bytes=encode_png(np.full((64, 64, 3), 15 * number, dtype=np.uint8))),)  # to 'svd' alone
        judged = (Judgement(0, 1, float(number % 2)),)
        records.append(Record(f"r{number}", f"clip {number % 5}", sides, judged, inputs=told))
    write_store(folder, records)
    return folder


@pytest.fixture(scope="module")
def killed_families(scored_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every family, once straight and once killed twice: ``<family>-<straight|killed>``."""
    folder = tmp_path_factory.mktemp("families")
    shown, jobs = str(clips(folder / "clips")), []
    for name in FAMILIES:
        family: Any = registry.get(name)
        family.tiny().pipeline().save_pretrained(folder / f"{name}-model")
        data: dict[str, Any] = {"source": str(scored_store), "score": "oracle"}
        if family.samples == "videos":
            data = {"source": shown, "num_frames": 3, "random_start": True, "views": 2}
        model = {"family": name, "path": str(folder / f"{name}-model")}
        keys = {
            "model": {**model, "max_sequence_length": 8} if name == "sd3" else model,
            **LORA,
            "data": {**data, "cache": str(folder / f"{name}-cache")},
            "method": "diffusion_dpo",
            "objective": "dpo",
            "optim": {"learning_rate": 1e-3, "schedule": "cosine"},
            "training": {"steps": 5, "batch_size": 2, "accumulation": 2, "checkpoint_every": 2},
        }
        straight = {"words": [str(recipe(keys, folder, f"{name}-straight"))], "log": str(folder / f"{name}.log")}
        again = {**straight, "words": [str(recipe(keys, folder, f"{name}-killed"))]}
        jobs.append([*({**again, "kill_at_batch": batch} for batch in (8, 4)), again, straight])
    codes = run_forks(jobs, folder)
    assert codes == [[-signal.SIGKILL, -signal.SIGKILL, 0, 0]] * len(FAMILIES)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_row_01_flows_and_videos_resume_after_kill_9_bit_identically(name: str, killed_families: Path) -> None:
    straight, broken = (killed_families / f"{name}-{kind}" for kind in ("straight", "killed"))
    assert [row["step"] for row in exact(straight)] == [1, 2, 3, 4, 5]
    assert_same_bits(straight, broken)
    assert (killed_families / f"{name}.log").read_text().count("resumed from") == 2


def test_row_02_no_checkpoint_that_was_published_is_bad_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "save_driver.py"), str(tmp_path / "run"), "0"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout)
    assert seen["bad"] == [] and seen["verified"] >= 100 and seen["trials"] >= 20
    assert seen["leftovers"] > 0, "no writer was killed while it wrote"


# ---------------------------------------------------------------- signals


def test_row_03_a_signal_ends_the_run_after_its_update_with_everything_saved(recipe_keys: Keys, tmp_path: Path) -> None:
    shape = {"steps": 40, "batch_size": 2, "accumulation": 2}  # nothing is saved before the end
    keys = recipe_keys(training=shape, data__cache=str(tmp_path / "cache"))
    kinds, jobs = (signal.SIGTERM, signal.SIGINT), []
    for kind in kinds:
        path, log = recipe(keys, tmp_path, kind.name), str(tmp_path / f"{kind.name}.log")
        asked = {"signal": int(kind), "after_lines": 3, "metrics": str(tmp_path / kind.name / "metrics.jsonl")}
        jobs.append([{"words": [str(path)], "log": log, **asked}])
        jobs[-1].append({"words": [str(path), "--training.steps", "12"], "log": log})
    straight = {"words": [str(recipe(keys, tmp_path, "straight")), "--training.steps", "12"], "log": os.devnull}
    assert run_forks([*jobs, [straight]], tmp_path) == [[143, 0], [130, 0], [0]]
    for kind in kinds:
        said = (tmp_path / f"{kind.name}.log").read_text().splitlines()
        (told,) = [line for line in said if line.startswith("diffpref: ")]
        step = int(told.split("after update ")[1].split(" ")[0])
        where = f"{tmp_path / kind.name}/checkpoints/step-{step:06d}"
        stopped = f"diffpref: stopped by {kind.name} after update {step} of 40; saved in {where}"
        assert told == f"{stopped}; the same command goes on from there" and 3 <= step < 12
        assert next(line for line in said if "resumed from" in line).endswith(where)
        assert_same_bits(tmp_path / kind.name, tmp_path / "straight")
        assert not list((tmp_path / kind.name).rglob(".*"))


# ---------------------------------------------------------------- the command for itself


def kill_after(process: subprocess.Popen[str], metrics: Path, lines: int) -> int:
    """Kill -9 as soon as so many updates are logged; return how many there are then."""
    until = time.monotonic() + PATIENCE
    while len(read_metrics(metrics)) < lines:
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return len(read_metrics(metrics))


def test_row_38_the_same_seed_gives_the_same_bits_under_a_launcher_killed_or_not_and_another_seed_others(
    recipe_keys: Keys, tmp_path: Path
) -> None:
    shape = {"steps": 40, "batch_size": 2, "accumulation": 2, "checkpoint_every": 5}
    keys = recipe_keys(training=shape, data__cache=None)  # each encodes for itself
    broken = recipe(keys, tmp_path, "broken")
    process = subprocess.Popen(
        [*LAUNCHED, str(broken)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that the launcher and what it launched die together
    )
    assert 8 <= kill_after(process, tmp_path / "broken" / "metrics.jsonl", 8) < 40
    done = subprocess.run([*LAUNCHED, str(broken)], env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and "resumed from" in done.stderr, done.stderr
    straight, other = recipe(keys, tmp_path, "straight"), recipe({**keys, "seed": 1}, tmp_path, "other")
    jobs = [{"words": [str(path)], "log": os.devnull} for path in (straight, other)]
    assert run_forks([jobs], tmp_path) == [[0, 0]]
    assert len(exact(tmp_path / "broken")) == 40
    assert_same_bits(tmp_path / "broken", tmp_path / "straight")
    # at the first update the two are alike: policy and reference are one model
    losses = [{row["loss"] for row in exact(tmp_path / name)[1:]} for name in ("straight", "other")]
    assert not losses[0] & losses[1]
