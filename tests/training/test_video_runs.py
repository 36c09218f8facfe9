"""Families of videos train through the same trainer: any pairwise objective, exact resume, results for diffusers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffpref.cache import EncodedCache
from diffpref.cache.encoded import Shown
from diffpref.config import build_recipe
from diffpref.core.contracts import Candidate, Judgement, PromptMedia, Record
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import ClipCut, View, encode_png, image_tensor, write_store
from diffpref.data.clips import read_clip
from diffpref.data.footage import pack_frames
from diffpref.models import load_family, registry
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
FULL = {"kind": "full"}
NAMES = [name for name in registry if registry.get(name).samples == "videos"]
ONE = pytest.mark.parametrize("model", ["unet3d"], indirect=True)
"""Of what is the same code for every family."""
FRAMES, FPS = 5, 4.0


def moving(seed: int, frames: int = FRAMES) -> bytes:
    """A clip of one square that moves over noise."""
    draw = np.random.default_rng(seed)
    pixels = np.repeat(draw.integers(0, 256, (1, 40, 48, 3), dtype=np.uint8), frames, axis=0)
    for number, frame in enumerate(pixels):
        frame[8:24, 4 * number : 4 * number + 16] = draw.integers(0, 256, 3)
    return pack_frames([("png", encode_png(frame)) for frame in pixels], FPS)


def judged(number: int, *more: Judgement) -> Record:
    """A pair of clips, and the picture that families are told that animate one."""
    candidates = tuple(Candidate(bytes=moving(2 * number + side)) for side in range(2))
    picture = np.random.default_rng(100 + number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    return Record(
        f"r{number}",
        f"clip {number % 3}",
        candidates,
        more or (Judgement(0, 1, float(number % 2)),),
        inputs=(PromptMedia(bytes=encode_png(picture)),),
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 6 judged pairs of clips."""
    folder = tmp_path_factory.mktemp("data") / "clips"
    write_store(folder, [judged(number) for number in range(6)])
    return folder


@pytest.fixture(scope="module", params=NAMES)
def model(request: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A saved tiny model, as a recipe's section."""
    folder = tmp_path_factory.mktemp("models") / request.param
    registry.get(request.param).tiny().pipeline().save_pretrained(folder)  # type: ignore[attr-defined]
    return {"family": request.param, "path": str(folder)}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoded")


@pytest.fixture
def video_keys(recipe_keys: Keys, model: dict[str, str], clips: Path, encoded: Path) -> Keys:
    """Recipes of a tiny video model on clips of three frames."""
    data = {"source": str(clips), "cache": str(encoded), "num_frames": 3}
    return lambda **changes: recipe_keys(model=model, data={**data, **changes.pop("data", {})}, **changes)


def fit(keys: dict[str, Any]) -> Trainer:
    trainer = Trainer(build_recipe(keys))
    trainer.fit()
    return trainer


@pytest.mark.parametrize(
    ("method", "objective", "adapter"),
    [
        ("diffusion_dpo", "dpo", {}),
        ("diffusion_dpo", "dpo", FULL),
        ("denoising", "simpo", {}),
    ],
)
def test_a_pairwise_objective_trains(video_keys: Keys, method: str, objective: str, adapter: dict[str, Any]) -> None:
    trainer = fit(video_keys(method=method, objective=objective, adapter=adapter))
    rows = read_metrics(trainer.output / "metrics.jsonl")
    assert len(rows) == 3 and all(0 < row["grad_norm"] < float("inf") for row in rows)
    if objective == "dpo":  # policy and reference are one model before the first update
        assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-6) and rows[0]["rewards/margins"] == 0
    assert trainer.batches.batch([(0, 0)]).media["chosen"].shape == (1, 4, 3, 8, 8)


def test_seppo_sets_winners_against_clips_of_its_snapshots(video_keys: Keys) -> None:
    method = {"seppo": {"snapshot_every": 1, "num_inference_steps": 2, "guidance_scale": 2.0}}
    trainer = fit(video_keys(method=method, training__steps=3, optim={"learning_rate": 1e-3}))
    rows = read_metrics(trainer.output / "metrics.jsonl")
    assert len(rows) == 3 and all(0 < row["grad_norm"] < float("inf") for row in rows)
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-6) and "flip_rate" in rows[2]
    assert [row["collect/forwards"] for row in rows] == [2 * 2 * 2.0] * 3  # records, steps, guided


def test_stopping_and_going_on_gives_the_same_bits(video_keys: Keys, tmp_path: Path) -> None:
    shape = {"steps": 3, "batch_size": 2, "checkpoint_every": 1}
    straight = fit(video_keys(output=str(tmp_path / "straight"), training=shape))
    fit(video_keys(output=str(tmp_path / "parts"), training={**shape, "steps": 2}))
    resumed = fit(video_keys(output=str(tmp_path / "parts"), training=shape))
    first, second = (load_file(next((t.output / "lora").glob("*.safetensors"))) for t in (straight, resumed))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert any(bool(tensor.any()) for name, tensor in first.items() if "lora_B" in name)


@pytest.mark.parametrize("adapter", [{"rank": 4, "alpha": 8}, FULL], ids=["lora", "full"])
def test_plain_libraries_reproduce_what_was_trained(
    video_keys: Keys, model: dict[str, str], adapter: dict[str, Any], tmp_path: Path
) -> None:
    trainer = fit(video_keys(adapter=adapter, optim={"learning_rate": 1e-2}))
    family: Any = load_family(model["family"], model["path"])
    folder = "model" if adapter is FULL else "lora"
    code = family.usage(f'"{model["path"]}"', folder).replace(f'"{folder}"', f'"{trainer.output / folder}"')
    told: dict[str, Any] = {}
    exec(code, told)  # what the card of the run says
    noisy = torch.randn(family.latent_shape(64, 3), generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1, 1)
    times = torch.tensor([700, 20]) if family.name != "svd" else torch.tensor([10.0, 0.1])
    asked = {"noisy": noisy, "timesteps": times}
    conditioning = family.encode_prompt(["clip 0", ""], 64)

    def answer(network: Any) -> torch.Tensor:
        with torch.no_grad():
            return family.forward(network.eval(), asked, conditioning)

    trained = answer(trainer.family.network)
    tolerance = 1e-6 if adapter is FULL else 1e-5  # a LoRA is folded into the weights, and rounded
    torch.testing.assert_close(answer(told["pipe"].unet), trained, rtol=0, atol=tolerance)
    assert (trained - answer(family.network)).abs().max() > 1e-4


@ONE
def test_both_sides_of_a_pair_are_cut_alike_and_begin_where_the_key_says(video_keys: Keys, tmp_path: Path) -> None:
    keys = video_keys(data={"random_start": True, "random_flip": True, "views": 3, "cache": str(tmp_path / "cache")})
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    seen = set()
    encoder: Any = trainer.batches.encoder
    for index, visit in ((index, visit) for index in range(6) for visit in range(4)):
        pair, (key,) = trainer.batches.items[index], trainer.batches.keys([(index, visit)])
        view, batch = encoder._view(pair.record_id, key), trainer.batches.batch([(index, visit)])
        for group in ("chosen", "rejected"):
            candidate = encoder.records[pair.record_index].candidates[pair.groups[group]]
            latents = encoder.cache.latents([candidate], [view])
            noise = trainer.random.normal("posterior", [(*key, pair.groups[group])], latents.mean.shape[1:])
            assert torch.equal(batch.media[group], latents.mean + latents.std * noise)
            seen.add(encoder.cache.shown([candidate], [view])[0].frames)
    assert seen == {(0, 1, 2), (1, 2, 3), (2, 3, 4)}


@ONE
def test_what_is_encoded_does_not_depend_on_its_companions_and_is_found_again(
    model: dict[str, str], tmp_path: Path
) -> None:
    family: Any = load_family(model["family"], model["path"], parts=("vae", "text"))
    candidates = [Candidate(bytes=moving(seed)) for seed in range(8)]
    whole, pieces = (EncodedCache(tmp_path / name, family, 64, ClipCut(3)) for name in ("whole", "pieces"))
    assert whole.encode_media(candidates) == 8
    for part in (candidates[6:], candidates[1:4], candidates):
        pieces.encode_media(part)
    assert torch.equal(whole.latents(candidates).mean, pieces.latents(candidates).mean)
    frames = torch.stack([torch.from_numpy(read_clip(one).frames[1:4].copy()) for one in candidates[:2]])
    pixels = [[image_tensor(frame.numpy(), 64).pixels for frame in clip] for clip in frames]
    wanted = family.encode_media(torch.stack([torch.stack(clip) for clip in pixels]))
    torch.testing.assert_close(whole.latents(candidates[:2]).mean, wanted.mean)
    assert whole.shown(candidates[:1]) == [Shown((1, 2, 3), FPS)]
    for cut, new in ((ClipCut(3), 0), (ClipCut(3, stride=2), 8), (ClipCut(2), 8), (ClipCut(3, fps=2.0), 8)):
        assert EncodedCache(tmp_path / "whole", family, 64, cut).encode_media(candidates) == new
    assert EncodedCache(tmp_path / "whole", family, 64, ClipCut(3)).encode_media(candidates, [View(start=0.0)] * 8) == 8


@ONE
@pytest.mark.parametrize("method", ["diffusion_dpo", "dense_dpo"])
def test_one_process_trains_as_replay_and_as_small_batches_do(
    video_keys: Keys, parts: Path, method: str, tmp_path: Path
) -> None:
    """The same records in an update, shared out otherwise, give the same numbers; of DenseDPO some have ties."""
    dense = {"objective": {"dense_dpo": {"beta": 5}}, "data": {"source": str(parts), "num_frames": 5}}
    changes = dense if method == "dense_dpo" else {"objective": {"dpo": {"beta": 5}}}
    losses = []
    for name, shape in {"whole": (4, 1), "pieces": (1, 4), "replay": (2, 2)}.items():
        training = {"steps": 1, "batch_size": shape[0], "accumulation": shape[1]}
        training |= {"replay": "always"} if name == "replay" else {}
        trainer = fit(video_keys(output=str(tmp_path / name), method=method, training=training, **changes))
        losses.append([row["grad_norm"] for row in read_metrics(trainer.output / "metrics.jsonl")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[2] == pytest.approx(losses[0], rel=1e-4)


@ONE
def test_a_bank_answers_as_the_reference_does(video_keys: Keys, tmp_path: Path) -> None:
    losses = []
    for slots in (0, 1):  # each of the six records is seen once
        keys = video_keys(output=str(tmp_path / f"{slots}"), bank={"slots": slots, "folder": str(tmp_path / "bank")})
        losses.append([row["loss"] for row in read_metrics(fit(keys).output / "metrics.jsonl")])
    assert losses[0] == losses[1] and losses[0][0] != losses[0][1]


# ---------------------------------------------------------------- parts of clips


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs judged by halves of a second (two frames): of the even ones the second is better, but for its end."""
    folder, records = tmp_path_factory.mktemp("data") / "parts", []
    for number in range(6):
        first, last = (1.0, 0.5) if number % 2 else (0.0, 1.0)
        told = [Judgement(0, 1, first, start=0.0, end=0.5), Judgement(0, 1, first, start=0.5, end=1.0)]
        records.append(judged(number, *told, Judgement(0, 1, last, start=1.0, end=1.5)))
    write_store(folder, records)
    return folder


@ONE
def test_judgements_of_parts_train_dense_dpo_through_the_frames_that_are_shown(
    video_keys: Keys, parts: Path, tmp_path: Path
) -> None:
    data = {"source": str(parts), "num_frames": 3, "cache": str(tmp_path / "cache")}
    keys = video_keys(method="denoising", objective="dense_dpo", data=data, optim={"learning_rate": 1e-3})
    trainer = Trainer(build_recipe({**keys, "training": {"steps": 2, "batch_size": 6}}))
    rows = list(trainer.steps())
    batch = trainer.batches.batch([(index, 0) for index in range(6)])
    assert [(item.chosen, item.rejected) for item in trainer.batches.items] == [(1, 0), (0, 1)] * 3
    # the frames 1 to 3 of five; 1 is in the first part, 2 and 3 in the second
    assert batch.columns["segment_label"].tolist() == [[1, 1, 1]] * 6
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-6) != rows[1]["loss"]
    assert all(0 < row["grad_norm"] < float("inf") for row in rows)
    output, whole = str(tmp_path / "late"), {**data, "num_frames": 5}
    late = Trainer(build_recipe(video_keys(method="denoising", objective="dense_dpo", data=whole, output=output)))
    late.setup()
    labels = late.batches.batch([(0, 0), (1, 0)]).columns["segment_label"]
    assert labels.tolist() == [[1, 1, 1, 1, -1], [1, 1, 1, 1, 0]]


@ONE
def test_parts_of_clips_that_tell_no_speed_or_differ_are_refused_before_the_first_step(
    video_keys: Keys, tmp_path: Path
) -> None:
    told = Judgement(0, 1, 1.0, start=0.0, end=0.5)
    still = [("png", encode_png(np.full((64, 64, 3), shade, np.uint8))) for shade in range(4)]
    fast, slow, mute = (pack_frames(still, fps) for fps in (8.0, 4.0, None))
    keys = video_keys(method="denoising", objective="dense_dpo", data={"source": str(tmp_path / "store")})
    for sides, why in (((mute, mute), "do not tell their frames a second"), ((fast, slow), "differ: frames")):
        record = Record("r", "p", tuple(map(Candidate, (sides[0], sides[1]))), (told, replace(told, aspect="other")))
        other = Record("s", "p", (Candidate(fast), Candidate(bytes=moving(0))), (replace(told, end=None),))
        write_store(tmp_path / "store", [record, replace(record, id="q"), other], replace=True)
        with pytest.raises(DataError, match=f"record 'r': parts are judged by seconds, and its clips {why}"):
            Trainer(build_recipe({**keys, "data": {**keys["data"], "drop_identical": False}})).setup()


@pytest.fixture(scope="module")
def won(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Guided pairs of which the same clip is better in every part."""
    folder = tmp_path_factory.mktemp("data") / "won"
    times = [(0.25 * k, 0.25 * (k + 1)) for k in range(FRAMES)]
    records = [
        judged(n, *(Judgement(0, 1, float(n % 2), start=start, end=end) for start, end in times)) for n in range(6)
    ]
    write_store(folder, [replace(one, source="guided") for one in records])
    return folder


@ONE
def test_where_one_clip_wins_every_frame_dense_dpo_is_video_dpo_and_structural_dpo(
    video_keys: Keys, won: Path, tmp_path: Path
) -> None:
    inside = {"dense_dpo": {"beta": 500, "reduction": "mean_inside"}}
    shape = {"steps": 3, "batch_size": 2}
    found = {}
    for method, objective in (("dense_dpo", inside), ("video_dpo", None), ("structural_dpo", None)):
        keys = video_keys(method=method, data={"source": str(won)}, output=str(tmp_path / method), training=shape)
        keys = {**keys, "optim": {"learning_rate": 1e-3}} | ({"objective": objective} if objective else {})
        found[method] = [(row["loss"], row["grad_norm"]) for row in Trainer(build_recipe(keys)).steps()]
    assert found["structural_dpo"] == found["video_dpo"]
    for dense, whole in zip(found["dense_dpo"], found["video_dpo"], strict=True):
        assert dense == pytest.approx(whole, rel=1e-3)  # sums in another order, times beta
    assert found["video_dpo"][2][0] != found["video_dpo"][0][0] == pytest.approx(0.693147, abs=1e-6)


@ONE
@pytest.mark.parametrize(
    ("method", "changes", "why"),
    [
        ("dense_dpo", {}, r"none of aspect 'overall' is of a part.*'diffpref score STORE --rewards NAME --segments 1"),
        ("dense_dpo", {"data": {"score": "oracle"}}, "no candidate has a score 'oracle'"),
        ("structural_dpo", {}, r"6 of 6 items of '.*' are no guided pairs; 'diffpref generate data/guided_clips --g"),
        ("video_dpo_omniscore", {}, "need the columns weight.*pairs by a score with data.rarity_bins"),
        (
            "video_dpo",
            {"objective": {"flow_dpo": {"beta_schedule": "one_minus_t_sq"}}},
            r"needs timesteps in \[0, 1\], those of a flow",
        ),
    ],
)
def test_what_is_missing_is_named_before_anything_is_encoded(
    video_keys: Keys, method: str, changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    keys = video_keys(method=method, **changes)
    trainer = Trainer(build_recipe({**keys, "data": {**keys["data"], "cache": str(tmp_path / "cache")}}))
    with pytest.raises((DataError, ConfigError), match=why) as caught:
        trainer.setup()
    assert "\n" not in str(caught.value) and not list((tmp_path / "cache").rglob("*.safetensors"))


@ONE
def test_parts_of_which_no_frame_is_shown_or_too_few_are_decided_teach_nothing(
    video_keys: Keys, tmp_path: Path
) -> None:
    late = Judgement(0, 1, 1.0, start=1.0, end=1.25)  # the last of five frames; the first three of four are shown
    ties = [Judgement(0, 1, 0.5, start=0.2 * k, end=0.2 * (k + 1)) for k in range(5)]
    for parts, why in (
        ([late], "6 pairs are judged by parts, and no frame that is shown lies in one without a tie"),
        ([*ties[:4], replace(ties[4], probability=1.0)], "in 6 pairs at most 20% of the judged parts are no ties"),
        (ties, "of 30 judgements none of aspect 'overall' is decided"),
    ):
        write_store(tmp_path / "store", [judged(n, *parts) for n in range(6)], replace=True)
        keys = video_keys(method="dense_dpo", data={"source": str(tmp_path / "store"), "num_frames": 3})
        with pytest.raises(DataError, match=why):
            Trainer(build_recipe(keys)).setup()


@ONE
@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(video_keys: Keys, run_together: Any, tmp_path: Path) -> None:
    training = {"steps": 2, "batch_size": 2}
    changes: dict[str, Any] = {"objective": {"dpo": {"beta": 5}}, "optim": {"learning_rate": 1e-3}}
    two = video_keys(output=str(tmp_path / "two"), training=training, **changes)
    for (said,) in run_together([("train", {"keys": two}, "ddp")]):
        assert "value" in said, said
    one = fit(video_keys(output=str(tmp_path / "one"), training={**training, "batch_size": 4}, **changes))
    rows, expected = (read_metrics(output / "metrics.jsonl") for output in (tmp_path / "two", one.output))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], rel=1e-5)
    first, second = (load_file(next((tmp_path / name / "lora").glob("*.safetensors"))) for name in ("one", "two"))
    for name in first:  # Adam makes much of what rounding leaves of gradients near zero, so single weights differ more
        assert (first[name] - second[name]).norm() <= 1e-3 * second[name].norm(), name
