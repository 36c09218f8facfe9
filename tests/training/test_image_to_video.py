"""A family that animates pictures: one picture for all sides, the record's own or the first frame of its clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffpref.config import build_recipe
from diffpref.core.contracts import Candidate, Context, Judgement, PromptMedia, Record
from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.data import image_tensor, write_store
from diffpref.data.footage import pack_frames
from diffpref.data.images import encode_png
from diffpref.methods import registry as methods
from diffpref.models import registry
from diffpref.training import Trainer

Keys = Callable[..., dict[str, Any]]
STILL = np.random.default_rng(7).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def clip(seed: int, first: np.ndarray) -> bytes:
    draw = np.random.default_rng(seed)
    frames = [first, *draw.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)]
    return pack_frames([("png", encode_png(frame)) for frame in frames], 4.0)


def record(number: int, *firsts: np.ndarray, inputs: tuple[PromptMedia, ...] = ()) -> Record:
    candidates = tuple(Candidate(bytes=clip(10 * number + side, first)) for side, first in enumerate(firsts))
    return Record(f"r{number}", "not read", candidates, (Judgement(0, 1, 1.0),), inputs=inputs)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "svd"
    registry.get("svd").tiny().pipeline().save_pretrained(folder)  # type: ignore[attr-defined]
    return str(folder)


@pytest.fixture
def trainer(recipe_keys: Keys, model: str, tmp_path: Path) -> Callable[..., Trainer]:
    def make(*records: Record) -> Trainer:
        write_store(tmp_path / "clips", records)
        data = {"source": str(tmp_path / "clips"), "cache": str(tmp_path / "cache"), "num_frames": 3}
        return Trainer(build_recipe(recipe_keys(model={"family": "svd", "path": model}, data=data)))

    return make


def told(trainer: Trainer, number: int = 0) -> dict[str, torch.Tensor]:
    next(trainer.steps())
    return dict(trainer.batches.batch([(number, 0)]).conditioning[""].tensors)


def test_both_sides_are_told_the_records_own_picture(trainer: Callable[..., Trainer]) -> None:
    others = np.random.default_rng(8).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    run = trainer(*(record(n, *others, inputs=(PromptMedia(bytes=encode_png(STILL)),)) for n in range(2)))
    found = told(run)
    family: Any = registry.get("svd").tiny()
    wanted = family.encode_opening(image_tensor(STILL, 64).pixels.unsqueeze(0), 64)
    for name, rows in wanted.items():
        torch.testing.assert_close(found[name], rows, rtol=0, atol=1e-5)
    assert found["added_time_ids"].tolist() == [[6.0, 127.0, pytest.approx(0.02)]]
    batch = run.batches.batch([(0, 0), (1, 0)])
    for name, dropped in (("image_embeds", 0), ("image_latents", 0), ("added_time_ids", None)):
        empty = batch.empty.tensors[name]
        assert (empty == 0).all() if dropped == 0 else torch.equal(empty, found[name])
    rows = methods.get("diffusion_dpo")().prepare(batch, Context(run.family, {}, Random(0)))
    for tensor in rows.conditioning.tensors.values():
        assert torch.equal(tensor[:2], tensor[2:])  # chosen and rejected
    assert rows.inputs["target"].shape == (4, 4, 3, 8, 8)


def test_without_one_the_first_frame_is_told_that_both_clips_share(trainer: Callable[..., Trainer]) -> None:
    found = told(trainer(record(0, STILL, STILL), record(1, STILL, STILL)))
    family: Any = registry.get("svd").tiny()
    wanted = family.encode_opening(image_tensor(STILL, 64).pixels.unsqueeze(0), 64)
    torch.testing.assert_close(found["image_latents"], wanted["image_latents"], rtol=0, atol=1e-5)


def test_clips_that_begin_differently_need_a_picture(trainer: Callable[..., Trainer]) -> None:
    with pytest.raises(DataError, match=r"^record 'r1': its clips begin with different pictures, and 'svd'") as caught:
        list(trainer(record(0, STILL, STILL), record(1, STILL, 255 - STILL)).steps())
    assert "\n" not in str(caught.value) and str(caught.value).endswith("to begin with (inputs)")


def test_a_sound_is_no_picture(trainer: Callable[..., Trainer]) -> None:
    sound = PromptMedia(kind="audio", bytes=b"not read")
    given = replace(record(0, STILL, 255 - STILL), inputs=(sound,))
    with pytest.raises(DataError, match=r"^record 'r0': its clips begin with different pictures"):
        list(trainer(given, record(1, STILL, STILL)).steps())
