"""Reward models train through the one trainer: heads and whole towers, saved, resumed and loaded as a reward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_encoders import save_clip

from diffpref import rewards
from diffpref.config import build_recipe
from diffpref.core.contracts import Candidate, Judgement, Record, Score
from diffpref.core.errors import DiffprefError
from diffpref.data import write_store
from diffpref.data.images import encode_png
from diffpref.training import Trainer
from diffpref.training.checkpoints import list_checkpoints

Keys = Callable[..., dict[str, Any]]
WORDS = ("red", "green", "blue")


def picture(channel: int, strength: int, seed: int) -> np.ndarray:
    """A noisy square that is more or less of one colour."""
    pixels = np.random.default_rng(seed).integers(0, 60, (64, 64, 3), dtype=np.uint8)
    pixels[..., channel] = np.clip(pixels[..., channel].astype(int) + strength, 0, 255)
    return pixels


def record(number: int) -> Record:
    channel = number % 3
    strengths = (190, 90, 0)
    candidates = tuple(
        Candidate(
            bytes=encode_png(picture(channel, strength, 3 * number + place)),
            scores=(Score("colour", "1", strength / 100), Score("grain", "1", float((number + place) % 3))),
        )
        for place, strength in enumerate(strengths)
    )
    judged = (Judgement(0, 2, 1.0), Judgement(1, 2, 0.8), Judgement(0, 1, 0.5))
    return Record(f"r{number}", f"{WORDS[channel]} please", candidates, judged)


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("towers"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "data"
    write_store(folder, [record(number) for number in range(24)], generator={})
    return folder


@pytest.fixture
def keys(towers: Path, store: Path, tmp_path: Path) -> Keys:
    def make(objective: Any, output: str = "run", family: str = "head_scorer", **changes: Any) -> dict[str, Any]:
        data = {"source": str(store), "pairing": "all_pairs", **changes.pop("data", {"score": "colour"})}
        return {
            "output": str(tmp_path / output),
            "model": {"family": family, "path": str(towers)},
            "adapter": {"kind": "full", **changes.pop("adapter", {})},
            "scorer": {"hidden": [16], **changes.pop("scorer", {})},
            "data": {**data, "cache": str(tmp_path / "cache")},
            "method": "reward_model",
            "objective": objective,
            "optim": {"learning_rate": 3e-3, **changes.pop("optim", {})},
            "training": {"steps": 20, "batch_size": 8, **changes.pop("training", {})},
            **changes,
        }

    return make


def run(keys: dict[str, Any]) -> tuple[Trainer, list[dict[str, float]]]:
    trainer = Trainer(build_recipe(keys))
    return trainer, list(trainer.steps())


def agreement(reward: Any) -> float:
    """How often the stronger colour scores higher, on pictures that were not trained on."""
    right = []
    for number in range(200, 212):
        made = [picture(number % 3, strength, number + place) for place, strength in enumerate((190, 0))]
        strong, weak = reward.score(made, [f"{WORDS[number % 3]} please"] * 2).tolist()
        right.append(strong > weak)
    return float(np.mean(right))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("head_scorer", {}),
        ("head_scorer", {"scorer": {"head": "linear"}}),
        ("clip_scorer", {}),
        ("clip_scorer", {"adapter": {"kind": "lora", "rank": 4}, "optim": {"learning_rate": 1e-2}}),
        ("clip_scorer", {"scorer": {"head": "mlp"}}),
    ],
    ids=["head", "linear", "towers", "lora", "towers and head"],
)
def test_it_learns_and_the_run_is_a_reward(keys: Keys, family: str, changes: dict[str, Any]) -> None:
    changes = {"training": {"steps": 40, "batch_size": 8}, **changes}
    trainer, rows = run(keys("bradley_terry", family=family, **changes))
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"] and rows[-1]["rewards/accuracies"] > 0.8
    reward = rewards.load("trained", str(trainer.output))
    assert reward.info.pair_scale == 1.0 and agreement(reward) >= 0.9
    batch = trainer.batches.batch([(0, 0), (5, 0)])
    prepared = trainer.plan.method.prepare(batch, trainer.updater.context)
    inside = trainer.roles["policy"](prepared)["score"]
    items = [trainer.batches.items[number] for number in (0, 5)]
    found = [
        record(int(item.record_id[1:])).candidates[getattr(item, side)].bytes
        for side in ("chosen", "rejected")
        for item in items
    ]
    from diffpref.data.images import decode_image

    outside = reward.score([decode_image(data) for data in found], [item.prompt for item in items] * 2)
    torch.testing.assert_close(outside, inside, rtol=1e-4, atol=1e-4)


def test_whole_towers_are_a_plain_clip_model(keys: Keys) -> None:
    trainer, _ = run(keys("bradley_terry", family="clip_scorer", training={"steps": 3, "batch_size": 8}))
    ours, plain = rewards.load("trained", str(trainer.output)), rewards.load("pickscore", str(trainer.output / "model"))
    made, prompts = [picture(0, 100, 1), picture(1, 100, 2)], ["red please", "red please"]
    torch.testing.assert_close(ours.score(made, prompts), plain.score(made, prompts), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("family", ["head_scorer", "clip_scorer"])
def test_it_resumes_to_the_bit(keys: Keys, family: str) -> None:
    shape = {"steps": 6, "batch_size": 4, "accumulation": 2, "checkpoint_every": 2}
    straight, _ = run(keys("bradley_terry", "straight", family, training=shape))
    again = keys("bradley_terry", "broken", family, training=shape)
    for metrics in Trainer(build_recipe(again)).steps():
        if metrics["step"] == 3:
            break
    resumed, _ = run(again)
    for part in ("policy", "optimizer"):
        first, second = (load_file(list_checkpoints(t.output)[-1] / f"{part}.safetensors") for t in (straight, resumed))
        assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_loss_of_likelihoods_is_refused(keys: Keys) -> None:
    with pytest.raises(DiffprefError, match="generates nothing"):
        run(keys("dpo"))
    with pytest.raises(DiffprefError, match="nothing to train"):
        run(keys("bradley_terry", scorer={"head": "cosine"}))
    with pytest.raises(DiffprefError, match="a head is trained as a whole"):
        run(keys("bradley_terry", adapter={"kind": "lora"}))
