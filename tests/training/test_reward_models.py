"""Reward models train through the one trainer: heads and whole towers, saved, resumed and loaded as a reward."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_encoders import save_clip

from diffpref import rewards
from diffpref.config import Data, build_recipe, load_recipe, recipe_names
from diffpref.core.contracts import Candidate, Judgement, Record, Score
from diffpref.core.errors import DiffprefError
from diffpref.data import write_store
from diffpref.data.images import encode_png
from diffpref.training import Trainer
from diffpref.training.checkpoints import list_checkpoints
from diffpref.training.items import load_items

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
        ("clip_scorer", {"adapter": {"kind": "part", "targets": ["vision_model.encoder.layers.1", "*_projection.*"]}}),
    ],
    ids=["head", "linear", "towers", "lora", "towers and head", "part"],
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


def test_a_part_is_trained_and_the_rest_stays(keys: Keys, towers: Path) -> None:
    adapter = {"kind": "part", "targets": ["text_model.encoder.layers.[1-9].*", "visual_projection"]}
    trainer, _ = run(
        keys("bradley_terry", family="clip_scorer", adapter=adapter, training={"steps": 2, "batch_size": 4})
    )
    before, after = load_file(towers / "model.safetensors"), load_file(trainer.output / "model" / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    asked = {name for name in before if name.startswith(("text_model.encoder.layers.1.", "visual_projection"))}
    assert before.keys() == after.keys() and moved <= asked and len(moved) > 0.5 * len(asked)
    with pytest.raises(DiffprefError, match="no weight's name begins with 'towers'"):
        run(keys("bradley_terry", "other", "clip_scorer", adapter={"kind": "part", "targets": ["towers"]}))


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


LOSSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "bradley_terry": ("bradley_terry", {}),
    "bradley_terry, soft labels": ("bradley_terry", {"data": {"drop_ties": False}}),
    "margin": ([{"bradley_terry": {"margin_scale": 0.5, "centering": 0.01}}], {}),
    "ties": ("bradley_terry_ties", {"data": {"drop_ties": False}}),
    "pickscore": ("pickscore", {"data": {"drop_ties": False, "equal_prompts": True}}),
    "hps pair": ([{"bradley_terry": {"temperature": 1.0}}], {"data": {"score": "colour"}}),
    "hps list": ([{"reward_plackett_luce": {"top": 1}}], {}),
    "hps hinge": ("hps_ranking", {}),
    "whole lists": ("reward_plackett_luce", {"data": {"score": "colour", "equal_prompts": True}}),
    "uncertain": ("uncertain_bradley_terry", {}),
    "aspects": ("bradley_terry_aspects", {"data": {"score": "colour", "aspects": ["colour", "grain"]}}),
    "regression": ("reward_regression", {}),
    "embeddings": ("gpm", {"adapter": {"head_size": 4}}),
    "two terms": ([{"uncertain_bradley_terry": {"coefficient": 0.5}}, "bradley_terry"], {}),
}


@pytest.mark.parametrize("family", ["head_scorer", "clip_scorer"])
@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_trains_twenty_steps(keys: Keys, name: str, family: str) -> None:
    objective, changes = LOSSES[name]
    trainer = Trainer(build_recipe(keys(objective, family=family, **changes)))
    trainer.setup()
    moved = [*trainer.updater.trained, *(p for group in trainer.updater.peers.values() for p in group)]
    before = [parameter.detach().clone() for parameter in moved]
    rows = list(trainer.steps())
    assert len(rows) == 20 and all(np.isfinite(row["loss"]) for row in rows)
    assert sum(row["loss"] for row in rows[-4:]) < sum(row["loss"] for row in rows[:4])
    assert sum(not torch.equal(a, b) for a, b in zip(moved, before, strict=True)) >= 0.5 * len(moved)
    reward = rewards.load("trained", str(trainer.output))
    made, prompts = [picture(0, 190, 1), picture(0, 0, 2)], ["red please"] * 2
    if name == "embeddings":
        with pytest.raises(DiffprefError, match="embeddings, which compare"):
            reward.score(made, prompts)
    else:
        assert reward.score(made, prompts).isfinite().all()
    if name == "aspects":
        assert set(reward.score_aspects(made, prompts)) == {"colour", "grain"}
    if name not in ("aspects", "regression", "hps hinge"):
        told = reward.compare(made[:1], made[1:], prompts[:1]) + reward.compare(made[1:], made[:1], prompts[:1])
        assert told.item() == pytest.approx(1.0, abs=1e-5)  # a tie counts half for either


def test_clips_are_the_mean_of_their_frames(keys: Keys, tmp_path: Path) -> None:
    def clip(channel: int, strength: int, seed: int) -> bytes:
        frames = [Image.fromarray(picture(channel, strength, seed + n)) for n in range(5)]
        file = io.BytesIO()
        frames[0].save(file, format="WEBP", save_all=True, append_images=frames[1:], lossless=True)
        return file.getvalue()

    made = [
        Record(
            f"c{number}",
            f"{WORDS[number % 3]} please",
            (Candidate(bytes=clip(number % 3, 190, number)), Candidate(bytes=clip(number % 3, 0, 90 + number))),
            (Judgement(0, 1, 1.0),),
        )
        for number in range(8)
    ]
    write_store(tmp_path / "clips", made, generator={})
    told = {"data": {"source": str(tmp_path / "clips")}, "scorer": {"frames": 3}}
    trainer, rows = run(keys("bradley_terry", **told))
    assert rows[-1]["loss"] < rows[0]["loss"]
    reward = rewards.load("trained", str(trainer.output))
    assert reward.info.media == "video"
    still, moving = (np.stack([picture(0, 190, n) for n in ns]) for ns in ([0] * 5, [0, 9, 1, 9, 2]))
    other = np.stack([picture(0, 190, n) for n in (0, 5, 1, 6, 2)])
    scores = reward.score([still, moving, other], ["red please"] * 3)
    assert scores[1] == scores[2] != scores[0]  # of five frames the first, the middle and the last are seen


def test_several_aspects_and_weights_of_prompts(store: Path) -> None:
    data = Data(
        source=str(store), score="colour", aspects=["grain", "nothing"], equal_prompts=True, pairing="all_pairs"
    )
    records, items = load_items(data, "pairs")
    assert len(items) == 72 and {item.columns["weight"] for item in items} == {1 / 24}  # eight records a prompt
    for item in items:
        one, other = (
            records[item.record_index].candidates[place].scores[1].value for place in (item.chosen, item.rejected)
        )
        assert item.columns["preferences"] == (float(one > other), -1.0)
    judged, _ = load_items(Data(source=str(store), aspects=["overall"]), "pairs"), None
    assert sorted({item.columns["preferences"] for item in judged[1]}) == [(0.5,), (0.8,), (1.0,)]
    points = load_items(Data(source=str(store), score="colour"), "points", columns=frozenset({"score"}))[1]
    assert len(points) == 72 and {item.columns["score"] for item in points} == {1.9, 0.9, 0.0}


def test_the_logit_scale_stays_within_its_bounds(keys: Keys) -> None:
    told = {"scorer": {"max_logit_scale": 20.0}, "optim": {"learning_rate": 1e-1}}
    trainer, _ = run(keys("bradley_terry", family="clip_scorer", **told))
    assert 0.0 <= trainer.family.network.logit_scale.item() <= np.log(20.0) + 1e-6


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("rewards/")])
def test_every_bundled_recipe_trains(name: str, towers: Path, store: Path, tmp_path: Path) -> None:
    own = load_recipe(name, {"output": str(tmp_path / "run"), "data.source": str(store)})
    small: dict[str, Any] = {"training.steps": 2, "training.batch_size": 2, "training.accumulation": 1}
    if own.model.family == "causal_lm":
        rows = [{"prompt": f"{n}? ", "chosen": "yes", "rejected": "no, no"} for n in range(4)]
        (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        small |= {"data.source": str(tmp_path / "texts.jsonl"), "data.score": None}
    else:
        small |= {"data.source": str(store), "data.score": "colour", "model.path": str(towers), "adapter.targets": None}
        small |= {"data.aspects": ["colour", "grain"] if own.data.aspects else [], "model.precision": "fp32"}
    trainer = Trainer(load_recipe(name, {"output": str(tmp_path / "run"), **small}))
    rows_done = list(trainer.steps())
    assert len(rows_done) == 2 and (trainer.output / "reward.json").is_file()
    if own.model.family == "causal_lm":
        reward = rewards.load("trained", str(trainer.output))
        scores = reward.score(["yes", "no, no", "yes"], ["1? ", "1? ", "2? "])
        assert reward.info.media == "text" and scores.isfinite().all()
        again = reward.score(["no, no"], ["1? "])
        torch.testing.assert_close(again, scores[1:2], rtol=1e-4, atol=1e-4)
