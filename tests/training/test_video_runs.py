"""Families of videos train through the same trainer: any pairwise objective, exact resume, results for diffusers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffpref.config import build_recipe
from diffpref.core.contracts import Candidate, Judgement, PromptMedia, Record
from diffpref.data import write_store
from diffpref.data.footage import pack_frames
from diffpref.data.images import encode_png
from diffpref.models import registry
from diffpref.training import Trainer
from diffpref.training.log import read_metrics

Keys = Callable[..., dict[str, Any]]
FULL = {"kind": "full"}
NAMES = [name for name in registry if registry.get(name).samples == "videos"]
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
        ("denoising", "ipo", {}),
        ("denoising", "simpo", FULL),
    ],
)
def test_a_pairwise_objective_trains(video_keys: Keys, method: str, objective: str, adapter: dict[str, Any]) -> None:
    trainer = fit(video_keys(method=method, objective=objective, adapter=adapter))
    rows = read_metrics(trainer.output / "metrics.jsonl")
    assert len(rows) == 3 and all(0 < row["grad_norm"] < float("inf") for row in rows)
    if objective == "dpo":  # policy and reference are one model before the first update
        assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-6) and rows[0]["rewards/margins"] == 0
    assert trainer.batches.batch([(0, 0)]).media["chosen"].shape == (1, 4, 3, 8, 8)
