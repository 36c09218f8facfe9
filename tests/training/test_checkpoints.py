"""Checkpoints are complete or absent, rotate, hold no pickle, and say what is wrong with them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import torch

from diffpref.core.errors import CheckpointError
from diffpref.core.files import read_json, write_json
from diffpref.training import state
from diffpref.training.checkpoints import list_checkpoints, load_checkpoint, remove_unfinished, save_checkpoint


def optimizer(seed: int = 0, steps: int = 3, sizes: tuple[int, ...] = (4, 3)) -> torch.optim.AdamW:
    """Return an AdamW that has moments."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in sizes]
    made = torch.optim.AdamW(parameters, lr=0.1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        made.step()
    return made


POLICY = {"a": torch.arange(6.0).view(2, 3), "tied": torch.arange(6.0).view(2, 3).T}


def save(folder: Path, step: int, keep: int = 9) -> Path:
    return save_checkpoint(folder, step, POLICY, optimizer(), keep)


def test_what_is_saved_comes_back_bit_by_bit(tmp_path: Path) -> None:
    first, second = optimizer(), optimizer(seed=1, steps=0)
    path = save_checkpoint(tmp_path, 400, POLICY, first, 2, {"scale": 1024.0})
    step, policy, scaler = load_checkpoint(path, second)
    assert step == 400 and scaler == {"scale": 1024.0}
    assert all(torch.equal(policy[name], tensor) for name, tensor in POLICY.items())
    expected, restored = first.state_dict(), second.state_dict()
    assert expected["param_groups"] == restored["param_groups"] and expected["state"].keys() == restored["state"].keys()
    for index, values in expected["state"].items():
        assert all(torch.equal(restored["state"][index][name], value) for name, value in values.items())


def test_a_checkpoint_holds_safetensors_and_json_with_the_modes_of_the_umask(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    assert sorted(file.name for file in path.iterdir()) == [
        "counters.json",
        "optimizer.json",
        "optimizer.safetensors",
        "policy.safetensors",
    ]
    (tmp_path / "plain").touch()
    wanted = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {wanted}


def test_the_newest_stay_and_order_is_by_number(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 1_000_001):
        save(tmp_path, step, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-1000000", "step-1000001"]


@pytest.mark.parametrize("point", ["save_tensors", "save_optimizer", "write_json"])
def test_a_failure_in_the_middle_leaves_the_old_ones_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    save(tmp_path, 1)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"diffpref.training.checkpoints.{point}", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]


def test_leftovers_of_a_killed_writer_are_no_checkpoints_and_are_removed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "checkpoints" / ".tmp-step-000002-4711").mkdir()
    assert len(list_checkpoints(tmp_path)) == 1
    remove_unfinished(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]


@pytest.mark.parametrize("file", ["counters.json", "optimizer.json", "optimizer.safetensors", "policy.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, file: str, damage: str) -> None:
    path = save(tmp_path, 3)
    content = (path / file).read_bytes()
    (path / file).unlink()
    if damage != "missing":
        (path / file).write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(CheckpointError, match="step-000003") as caught:
        load_checkpoint(path, optimizer())
    assert "\n" not in str(caught.value)


def test_other_formats_and_other_optimisers_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    with pytest.raises(CheckpointError, match=r"groups of \[2\] parameters, this run has \[3\]"):
        load_checkpoint(path, optimizer(sizes=(4, 3, 2)))
    write_json(path / "counters.json", {**read_json(path / "counters.json"), "format": 2})
    with pytest.raises(CheckpointError, match="format 2, this version reads 1"):
        load_checkpoint(path, optimizer())


def test_tensors_that_share_memory_can_be_saved(tmp_path: Path) -> None:
    tied = torch.arange(4.0)
    state.save_tensors(tmp_path / "x.safetensors", {"a": tied, "b": tied, "c": tied[::2]})
    assert state.load_tensors(tmp_path / "x.safetensors")["c"].tolist() == [0.0, 2.0]
