"""Checkpoints are complete or absent, verified, rotate after publication, hold no pickle, and say what is wrong."""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffpref.core.errors import CheckpointError, NewerFormatError
from diffpref.core.files import read_json
from diffpref.training import manifest, state
from diffpref.training.checkpoints import (
    list_checkpoints,
    newest_checkpoint,
    open_checkpoint,
    remove_unfinished,
    save_checkpoint,
)

FILES = ["counters.json", "manifest.json", "optimizer.safetensors", "policy.safetensors"]


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
    moments, described = state.pack_optimizer(optimizer())
    return save_checkpoint(folder, step, {"policy": POLICY, "optimizer": moments}, {"optimizer": described}, keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back_bit_by_bit(tmp_path: Path) -> None:
    first, second = optimizer(), optimizer(seed=1, steps=0)
    moments, described = state.pack_optimizer(first)
    counters = {"optimizer": described, "scaler": {"scale": 1024.0, "third": 1 / 3}}
    path = save_checkpoint(tmp_path, 400, {"policy": POLICY, "optimizer": moments}, counters, 2)
    found = open_checkpoint(path)
    assert found.step == 400 and found.counters["scaler"] == {"scale": 1024.0, "third": 1 / 3}
    assert all(torch.equal(found.part("policy")[name], tensor) for name, tensor in POLICY.items())
    state.restore_optimizer(second, found.part("optimizer"), found.counters["optimizer"])
    expected, restored = first.state_dict(), second.state_dict()
    assert expected["param_groups"] == restored["param_groups"] and expected["state"].keys() == restored["state"].keys()
    for index, values in expected["state"].items():
        assert all(torch.equal(restored["state"][index][name], value) for name, value in values.items())


def test_any_part_can_be_saved_and_an_absent_one_is_named(tmp_path: Path) -> None:
    parts = {"policy": POLICY, "ema": {"half": torch.ones(3, dtype=torch.bfloat16)}, "method_state": {}}
    found = open_checkpoint(save_checkpoint(tmp_path, 1, parts, {}, 2))
    assert torch.equal(found.part("ema")["half"], parts["ema"]["half"]) and found.part("method_state") == {}
    assert "roles" not in found
    with pytest.raises(CheckpointError, match="holds no part 'roles'"):
        found.part("roles")


@pytest.mark.parametrize("dtype", state.DTYPES, ids=str)
def test_every_number_format_is_read_by_the_library(tmp_path: Path, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 2, (5, 3), generator=generator).to(dtype)
    tensors = {"odd": torch.ones(1, dtype=torch.uint8), "x": raw, "t": raw.T, "scalar": raw[0, 0], "none": raw[:0]}
    manifest.write_counted(tmp_path / "x.safetensors", state.safetensors_pieces(tensors))
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name].contiguous().view(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_row_40_files_have_the_modes_of_the_umask_and_name_no_place_or_person(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    assert names(path) == FILES
    (tmp_path / "plain").touch()
    wanted = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {wanted}
    assert not [file for file in path.iterdir() if str(tmp_path).encode() in file.read_bytes()]


def test_the_manifest_says_what_every_file_and_tensor_is(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    said = read_json(path / "manifest.json")
    assert (said["format"], said["step"]) == (2, 7) and torch.__version__.startswith(said["libraries"]["torch"])
    assert {name: file["bytes"] for name, file in said["files"].items()} == {
        name: (path / name).stat().st_size for name in FILES if name != "manifest.json"
    }
    assert said["files"]["policy.safetensors"]["tensors"]["tied"] == {"dtype": "F32", "shape": [3, 2]}


def test_the_newest_stay_and_order_is_by_number(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 1_000_001):
        save(tmp_path, step, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-1000000", "step-1000001"]


def test_bad_ones_do_not_count_as_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    flip(tmp_path / "checkpoints/step-000003/policy.safetensors", -1)
    save(tmp_path, 4, keep=2)
    assert names(tmp_path / "checkpoints") == ["step-000002", "step-000003", "step-000004"]


def test_a_bad_checkpoint_of_the_same_step_is_replaced_and_a_good_one_stays(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    before = path.stat().st_ino
    assert save(tmp_path, 1).stat().st_ino == before
    flip(path / "counters.json", 3)
    assert save(tmp_path, 1).stat().st_ino != before
    assert open_checkpoint(path).step == 1 and names(tmp_path / "checkpoints") == ["step-000001"]


def test_leftovers_of_a_killed_writer_are_no_checkpoints_and_are_removed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "checkpoints" / ".tmp-step-000002-4711").mkdir()
    (tmp_path / ".tmp-config.yaml-4711").touch()
    (tmp_path / ".old-lora-4711").mkdir()  # killed between the two renames: there is no lora now
    assert len(list_checkpoints(tmp_path)) == 1
    remove_unfinished(tmp_path)
    assert names(tmp_path / "checkpoints") == ["step-000001"] and names(tmp_path) == ["checkpoints", "lora"]


# ---------------------------------------------------------------- damage


def flip(path: Path, offset: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_row_05_every_flipped_byte_is_found(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    for file in FILES:
        content = (path / file).read_bytes()
        for offset in range(len(content)):
            flip(path / file, offset, bit=offset % 8)
            with pytest.raises(CheckpointError, match=rf"step-000003: (manifest\.json|{file}): "):
                open_checkpoint(path)
            (path / file).write_bytes(content)
    assert open_checkpoint(path).step == 3


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "damage",
    [Path.unlink, cut, lambda path: path.write_bytes(b""), lambda path: flip(path, 40), lambda path: flip(path, -2)],
    ids=["missing", "cut", "empty", "flipped", "flipped near the end"],
)
def test_row_05_a_damaged_newest_checkpoint_falls_back_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, damage: Callable[[Path], None]
) -> None:
    save(tmp_path, 2)
    damage(save(tmp_path, 3) / file)
    with caplog.at_level(logging.WARNING):
        found = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 2
    (warning,) = caplog.messages
    assert f"step-000003: {file}: " in warning and warning.endswith("; going on from step-000002")


def test_row_06_when_all_are_bad_each_is_named_with_its_reason(tmp_path: Path) -> None:
    (save(tmp_path, 1) / "policy.safetensors").unlink()
    cut(save(tmp_path, 2) / "optimizer.safetensors")
    with pytest.raises(CheckpointError) as caught:
        newest_checkpoint(tmp_path)
    head, newest, oldest = str(caught.value).splitlines()
    assert head.endswith("no checkpoint is good; put one back, or remove the folder to begin again")
    assert "step-000002: optimizer.safetensors: " in newest and "bytes, expected " in newest
    assert oldest.endswith("step-000001: policy.safetensors: missing")


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None


# ---------------------------------------------------------------- formats

STORED = Path(__file__).parents[1] / "golden" / "checkpoints"


def test_row_07_every_past_format_is_read() -> None:
    assert sorted(path.name for path in STORED.iterdir()) == ["format-1", "format-2"]
    for folder in STORED.iterdir():
        assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 200_000
        found = newest_checkpoint(folder)
        assert found is not None and found.step == 3
        assert found.counters["scaler"] == {"scale": 1024.0, "growth_factor": 2.0}
        policy = found.part("policy")
        assert torch.equal(policy["a"], torch.arange(6.0).view(2, 3))
        assert policy["b"].dtype == torch.bfloat16 and torch.equal(policy["b"], policy["a"].T.bfloat16())
        given = optimizer(seed=1, steps=0)
        state.restore_optimizer(given, found.part("optimizer"), found.counters["optimizer"])
        assert given.param_groups[0]["lr"] == 0.1 and given.param_groups[0]["betas"] == (0.9, 0.999)
        assert given.state_dict()["state"][1]["step"] == 3 and given.state_dict()["state"][0]["exp_avg"].shape == (4,)


def test_row_07_a_later_format_is_told_and_nothing_older_taken_instead(tmp_path: Path) -> None:
    save(tmp_path, 2)
    path = save(tmp_path, 3)
    values = manifest.read_manifest(path)
    manifest.write_manifest(path, {**values, "format": 3})
    with pytest.raises(NewerFormatError, match="step-000003: format 3, this version reads up to 2: update diffpref"):
        newest_checkpoint(tmp_path)


def test_another_optimiser_is_refused(tmp_path: Path) -> None:
    found = open_checkpoint(save(tmp_path, 3))
    with pytest.raises(CheckpointError, match=r"groups of \[2\] parameters, this run has \[3\]"):
        state.restore_optimizer(optimizer(sizes=(4, 3, 2)), found.part("optimizer"), found.counters["optimizer"])
