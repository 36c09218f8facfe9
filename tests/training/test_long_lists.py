"""Long lists by replay: no more is held for a backward pass than a few rows need, and the gradient is the joint one."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffpref.config import build_recipe
from diffpref.core.contracts import Candidate, Record, Score
from diffpref.core.errors import ConfigError
from diffpref.data import encode_png, write_store
from diffpref.training import Trainer

Keys = Callable[..., dict[str, Any]]
LENGTH = 8


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four records of eight pictures, one of them of seven, scored by two rewards."""
    draw, records = np.random.default_rng(0), []
    for number in range(4):
        candidates = tuple(
            Candidate(
                bytes=encode_png(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)),
                scores=(Score("one", "1", float(draw.random())), Score("other", "1", float(draw.random()))),
            )
            for _ in range(LENGTH - (number == 2))
        )
        records.append(Record(f"r{number}", f"prompt {number}", candidates))
    folder = tmp_path_factory.mktemp("lists") / "store"
    write_store(folder, records)
    return folder


@pytest.fixture
def trainer(recipe_keys: Keys, lists: Path) -> Iterator[Trainer]:
    """A trainer in float64 that is no longer where it started, so that log-ratios differ from zero."""
    data = {"source": str(lists), "score": ["one", "other"], "combine": "win_fraction"}
    keys = recipe_keys(method="rank_dpo", training={"steps": 1, "batch_size": 2, "accumulation": 2, "max_rows": 1})
    keys["data"] |= data
    made = Trainer(build_recipe(keys))
    made.setup()
    made.bare.double()
    generator = torch.Generator().manual_seed(0)
    for parameter in made.updater.trained:
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    yield made
    made.folder.release()


def gradient(trainer: Trainer, max_rows: int | None, records: int = 4, size: int = 2) -> Tensor:
    """Return the gradient of an update, clipping and step left out."""
    shape = {"batch_size": size, "accumulation": records // size, "max_rows": max_rows}
    training = trainer.recipe.training.model_copy(update=shape)
    roles = {name: replace(role, max_rows=max_rows) for name, role in trainer.roles.items()}  # type: ignore[type-var]
    updater = replace(
        trainer.updater,
        recipe=trainer.recipe.model_copy(update={"training": training}),
        context=replace(trainer.updater.context, roles=roles),
    )
    items = trainer.batches.sampler.batch(0, records)
    parts = [items[start : start + size] for start in range(0, records, size)]
    if updater._couples(records):
        updater._replay(parts, 1)
    else:
        updater._accumulate(parts, 1, records)
    found = torch.cat([p.grad.reshape(-1) for p in trainer.updater.trained if p.grad is not None])
    trainer.updater.optimizer.zero_grad()
    return found


def test_the_gradient_is_that_of_all_candidates_at_once(trainer: Trainer) -> None:
    joint = gradient(trainer, None)
    assert joint.dtype == torch.float64 and joint.norm() > 0
    for max_rows in (1, 3, 16):  # one by one; pieces that divide neither lists nor batches; all in one
        assert (gradient(trainer, max_rows) - joint).norm() <= 1e-6 * joint.norm()


class Held:
    """A tensor that autograd keeps for the backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@contextmanager
def held_bytes(weights: set[int]) -> Iterator[list[int]]:
    """Count the bytes that are kept for backward passes at any one time, weights aside; the largest is yielded."""
    alive: dict[int, int] = {}
    peak = [0]

    def pack(tensor: Tensor) -> Held | Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in weights:
            return tensor
        kept = Held(tensor)
        alive[id(kept)] = tensor.numel() * tensor.element_size()
        weakref.finalize(kept, alive.pop, id(kept), None)
        peak[0] = max(peak[0], sum(alive.values()))
        return kept

    def unpack(kept: Held | Tensor) -> Tensor:
        return kept.tensor if isinstance(kept, Held) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield peak


def test_a_list_of_eight_holds_no_more_than_half_as_much_again_as_one_candidate(trainer: Trainer) -> None:
    weights = {p.untyped_storage().data_ptr() for p in trainer.bare.parameters()}
    (item,) = trainer.batches.sampler.batch(0, 1)
    rows = trainer.plan.method.prepare(trainer.batches.batch([item]), trainer.updater.context)
    with held_bytes(weights) as one:
        trainer.roles["policy"](rows.pieces(1)[0], grad=True)["prediction"].square().mean().backward()
    trainer.updater.optimizer.zero_grad()
    with held_bytes(weights) as pieces:
        gradient(trainer, 1, records=1, size=1)
    with held_bytes(weights) as whole:
        gradient(trainer, None, records=1, size=1)
    assert one[0] > 0 and pieces[0] <= 1.5 * one[0]
    assert whole[0] >= 0.8 * LENGTH * one[0]  # else the test would pass without replay


def test_a_run_by_pieces_is_the_run_of_the_whole(recipe_keys: Keys, lists: Path, tmp_path: Path) -> None:
    found = []
    for max_rows in (None, 3):
        shape = {"steps": 2, "batch_size": 2, **({"max_rows": max_rows} if max_rows else {})}
        keys = recipe_keys(method="rank_dpo", output=str(tmp_path / str(max_rows)), training=shape)
        keys["data"] |= {"source": str(lists), "score": ["one", "other"], "combine": "win_fraction"}
        keys["optim"] = {"learning_rate": 1e-3}
        found.append(list(Trainer(build_recipe(keys)).steps()))
    for row, wanted in zip(found[1], found[0], strict=True):
        for name in {name for name in wanted if not name.startswith("perf/")}:
            assert row[name] == pytest.approx(wanted[name], rel=2e-4, abs=2e-5), name


@pytest.mark.parametrize("objective", ["dspo", {"tdpo": {}}])
def test_what_reads_more_than_numbers_is_not_cut(recipe_keys: Keys, objective: Any) -> None:
    keys = recipe_keys(method="denoising", objective=[objective], training={"max_rows": 1})
    with pytest.raises(ConfigError, match=r"training\.max_rows: cuts what denoisers are asked"):
        Trainer(build_recipe(keys)).setup()
