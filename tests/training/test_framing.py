"""What training shows of images: both of a pair alike, and what SDXL is told of their sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffpref.cache import EncodedCache
from diffpref.config import build_recipe
from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.core.errors import DataError
from diffpref.data import View, encode_png, write_store
from diffpref.objectives import objective, registry
from diffpref.training import Trainer

Keys = Callable[..., dict[str, Any]]
SIZES = ((64, 96), (80, 64))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A store of 6 judged pairs whose two images have different sizes; of every second one the second is better."""
    draw = np.random.default_rng(0)
    records = []
    for number in range(6):
        images = [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
        judged = Judgement(0, 1, 1.0) if number % 2 else Judgement(1, 0, 1.0)
        candidates = tuple(Candidate(bytes=encode_png(image)) for image in images)
        records.append(Record(f"r{number}", f"prompt {number}", candidates, (judged,)))
    write_store(tmp_path / "pictures", records)
    return tmp_path / "pictures"


def trainer(recipe_keys: Keys, source: Path, tmp_path: Path, **data: Any) -> Trainer:
    given = {"source": str(source), "cache": str(tmp_path / "cache"), **data}
    made = Trainer(build_recipe(recipe_keys(data=given)))
    made.setup()
    return made


def shows(given: Trainer, index: int, visit: int, group: str, mirrored: bool) -> bool:
    """Whether a batch shows an image of a pair as it is, or mirrored, to the bit."""
    batch, pair = given.batches.batch([(index, visit)]), given.batches.items[index]
    number = getattr(pair, group)
    candidate = given.batches.encoder.records[pair.record_index].candidates[number]
    latents = given.batches.encoder.cache.latents([candidate], [View(mirrored)])
    noise = given.random.normal("posterior", [(*batch.keys[0], number)], latents.mean.shape[1:])
    return torch.equal(batch.media[group], latents.mean + latents.std * noise)


def test_both_images_of_a_pair_are_mirrored_together(recipe_keys: Keys, pictures: Path, tmp_path: Path) -> None:
    given = trainer(recipe_keys, pictures, tmp_path, random_flip=True)
    seen = []
    for index, visit in ((index, visit) for index in range(6) for visit in range(4)):
        (mirrored,) = (turned for turned in (False, True) if shows(given, index, visit, "chosen", turned))
        assert shows(given, index, visit, "rejected", mirrored)
        seen.append(mirrored)
    assert set(seen) == {False, True}


def test_sdxl_is_told_the_first_image_s_size_for_both_sides_whichever_won(
    recipe_keys: Keys, pictures: Path, tmp_path: Path
) -> None:
    given = trainer(recipe_keys, pictures, tmp_path, size_conditioning="original", resolution=64)
    batch = given.batches.batch([(index, 0) for index in range(6)])
    told = batch.conditioning[""].tensors["time_ids"]
    assert told.tolist() == [[64.0, 96.0, 0.0, 16.0, 64.0, 64.0]] * 6
    constant = trainer(recipe_keys, pictures, tmp_path, resolution=64).batches.batch([(0, 0)])
    assert constant.conditioning[""].tensors["time_ids"].tolist() == [[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]]


def test_random_crops_train_and_the_next_run_encodes_nothing(recipe_keys: Keys, pictures: Path, tmp_path: Path) -> None:
    keys = {"random_crop": True, "random_flip": True, "views": 3, "resolution": 64}
    given = trainer(recipe_keys, pictures, tmp_path, **keys)
    assert all(np.isfinite(metrics["loss"]) for metrics in given.steps())
    kept = len(given.batches.encoder.cache._tensors)
    assert kept == 6 * 2 * 3 + 7  # views of the images, and captions with the empty one
    again = trainer(recipe_keys, pictures, tmp_path, **keys)
    assert len(again.batches.encoder.cache._tensors) == kept


def test_soft_labels_are_refused_by_an_objective_that_would_ignore_them(recipe_keys: Keys, tmp_path: Path) -> None:
    @objective("deaf", kind="pairwise", source="a test", evidence="ours")
    def deaf(*, chosen_log_ratio: Tensor, rejected_log_ratio: Tensor) -> Tensor:
        """Take every label for certain."""
        return rejected_log_ratio - chosen_log_ratio

    image = Candidate(bytes=encode_png(np.zeros((64, 64, 3), dtype=np.uint8)))
    other = Candidate(bytes=encode_png(np.full((64, 64, 3), 255, dtype=np.uint8)))
    write_store(tmp_path / "soft", [Record(f"r{n}", "p", (image, other), (Judgement(0, 1, 0.7),)) for n in range(2)])
    try:
        keys = recipe_keys(data={"source": str(tmp_path / "soft")}, objective="deaf")
        with pytest.raises(DataError, match="soft labels or ties, which the objective deaf would take for"):
            Trainer(build_recipe(keys)).setup()
    finally:
        for names in (registry._things, registry._origins):
            names.pop("deaf")


def test_images_are_read_to_be_encoded_a_few_at_a_time_and_never_in_a_step(
    recipe_keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffpref.training.encoders.denoising.AT_ONCE", 3)
    asked: list[int] = []
    encode = EncodedCache.encode_media

    def counted(self: EncodedCache, candidates: Any, views: Any = None) -> int:
        asked.append(len(candidates))
        return encode(self, candidates, views)

    monkeypatch.setattr(EncodedCache, "encode_media", counted)
    trainer = Trainer(build_recipe(recipe_keys(data__cache=str(tmp_path / "own"), data__size_conditioning="original")))
    trainer.setup()
    assert asked == [9] * 5 + [3]  # 16 pairs, three images of each
    trainer.batches.encoder.records = ()
    assert next(trainer.steps())["loss"] > 0


def test_a_recipe_says_what_the_columns_of_a_table_mean(recipe_keys: Keys, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(encode_png(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    row = {"text_en": "two", "left": "a.png", "right": "b.png", "left_wins": 0}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "left_wins": 0.75}) + "\n")
    columns = {"prompt": "text_en", "first": "left", "second": "right", "probability": "left_wins"}
    given = trainer(recipe_keys, tmp_path / "pairs.jsonl", tmp_path, columns=columns)
    assert [(pair.prompt, pair.chosen, pair.probability) for pair in given.batches.items] == [
        ("two", 1, 1.0),
        ("two", 0, 0.75),
    ]
