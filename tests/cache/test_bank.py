"""A bank never gives another row's numbers, and is shorter, not wrong, after whatever happened to it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffpref.cache import Bank, BankedRole, bank_folder, row_keys
from diffpref.core.contracts import Conditioning, Rows
from diffpref.core.errors import ConfigError, DataError
from diffpref.likelihood import DenoisingLikelihood

FINGERPRINT = {"weights": "abc", "threads": 1}


def some(count: int, seed: int = 0) -> tuple[Any, Any]:
    drawn = np.random.default_rng(seed)
    return drawn.integers(-(2**63), 2**63, (count, 2), dtype=np.int64), drawn.random((count, 1), dtype=np.float32)


def question(count: int = 4, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    noisy, target = torch.randn(2, count, 4, 2, 2, generator=generator)
    conditioning = {"prompt_embeds": torch.randn(count, 3, 5, generator=generator), "time_ids": torch.ones(count, 6)}
    return Rows(
        "denoising",
        {"noisy": noisy, "target": target, "timesteps": torch.arange(count)},
        Conditioning(conditioning),
        {"": torch.arange(count)},
    )


def test_numbers_come_back_now_and_in_the_next_run(tmp_path: Path) -> None:
    keys, numbers = some(50)
    bank = Bank(tmp_path, FINGERPRINT)
    assert len(bank) == 0 and not bank.get(keys)[1].any()
    bank.add(keys[:30], numbers[:30])
    bank.flush()
    bank.add(keys[20:], numbers[20:])
    for reader in (bank, Bank(tmp_path, FINGERPRINT)):
        wanted = 50 if reader is bank else 30
        read, found = reader.get(keys)
        assert len(reader) == wanted and found.sum() == wanted and (read[:wanted] == numbers[:wanted]).all()
    bank.flush()
    bank.flush()
    again = Bank(tmp_path, FINGERPRINT)
    assert len(again) == 50 and (again.get(keys[::-1])[0] == numbers[::-1]).all()
    assert len(list(again.folder.glob("*.safetensors"))) == 2


def test_what_is_there_stays_and_what_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    keys, numbers = some(4)
    bank = Bank(tmp_path, FINGERPRINT)
    bank.add(keys, numbers)
    bank.add(keys, numbers + 1)
    odd, values = some(2, seed=1)
    bank.add(odd, values * np.array([[np.nan], [np.inf]], np.float32))
    assert (bank.get(keys)[0] == numbers).all() and not bank.get(odd)[1].any()


def test_keys_that_share_a_half_are_told_apart(tmp_path: Path) -> None:
    keys = np.array([[7, 1], [7, 2], [7, 3], [8, 1]], np.int64)
    bank = Bank(tmp_path, FINGERPRINT)
    bank.add(keys, np.arange(4, dtype=np.float32)[:, None])
    bank.flush()
    asked = np.array([[7, 2], [7, 4], [8, 1], [9, 9], [7, 3]], np.int64)
    numbers, found = bank.get(asked)
    assert found.tolist() == [True, False, True, False, True] and numbers[found, 0].tolist() == [1, 3, 2]


def test_many_rows_are_few_files(tmp_path: Path) -> None:
    bank = Bank(tmp_path, FINGERPRINT)
    for part in range(60):
        bank.add(*some(1000, seed=part))
    bank.flush()
    assert len(bank) == 60_000 and len(list(bank.folder.glob("*.safetensors"))) < 40
    assert len(Bank(tmp_path, FINGERPRINT)) == 60_000


def test_several_writers_fill_one_bank(tmp_path: Path) -> None:
    first, second = Bank(tmp_path, FINGERPRINT), Bank(tmp_path, FINGERPRINT)
    keys, numbers = some(20)
    first.add(keys[:12], numbers[:12])
    first.add(keys[12:], numbers[12:], save=False)
    second.add(keys[8:], numbers[8:])
    first.flush()
    second.flush()
    assert first.get(keys)[1].all()
    read, found = Bank(tmp_path, FINGERPRINT).get(keys)
    assert found.all() and (read == numbers).all()


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:]])
def test_a_damaged_file_is_named(tmp_path: Path, change: Any) -> None:
    bank = Bank(tmp_path, FINGERPRINT)
    bank.add(*some(5))
    bank.flush()
    (path,) = bank.folder.glob("*.safetensors")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=r"damaged file of a bank .*delete it, its rows are computed again") as error:
        Bank(tmp_path, FINGERPRINT)
    assert str(path) in str(error.value)


def parts(count: int) -> list[tuple[Any, Any]]:
    return [some(5, seed=part) for part in range(count)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_row_37_a_bank_killed_anywhere_is_a_shorter_bank_and_is_filled_up(tmp_path: Path) -> None:
    delays, lengths, given = np.random.default_rng(0).uniform(0.002, 0.08, 10), [], parts(400)
    for trial, delay in enumerate(delays):
        folder = tmp_path / str(trial)
        child = os.fork()
        if child == 0:
            bank = Bank(folder, FINGERPRINT)
            for keys, numbers in given:
                bank.add(keys, numbers)
                bank.flush()
            os._exit(0)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        bank = Bank(folder, FINGERPRINT)
        whole = [bool(bank.get(keys)[1].all()) for keys, _ in given]
        assert whole == [part < len(bank) // 5 for part in range(400)] and len(bank) % 5 == 0
        assert all((bank.get(keys)[0] == numbers).all() for keys, numbers in given[: len(bank) // 5])
        lengths.append(len(bank))
        for keys, numbers in given:
            bank.add(keys, numbers)
        bank.flush()
        assert len(Bank(folder, FINGERPRINT)) == 2000
    assert len(set(lengths)) > 3 and min(lengths) < 2000, lengths  # killed at different places


def test_a_row_is_found_wherever_it_stands_and_only_as_it_is() -> None:
    rows = question()
    keys = row_keys(rows)
    assert len({tuple(key) for key in keys.tolist()}) == 4
    order = [2, 0, 3, 1]
    moved = replace(
        rows, inputs={k: t[order] for k, t in rows.inputs.items()}, conditioning=rows.conditioning.take(order)
    )
    assert (row_keys(moved) == keys[order]).all()
    for name in ("noisy", "target", "timesteps", "prompt_embeds", "time_ids"):
        inputs, told = dict(rows.inputs), dict(rows.conditioning.tensors)
        holder = inputs if name in inputs else told
        changed = holder[name].clone()
        changed.view(4, -1)[1, -1] += 1 if name == "timesteps" else 1e-6
        holder[name] = changed
        other = row_keys(replace(rows, inputs=inputs, conditioning=Conditioning(told)))
        assert (other == keys).all(axis=1).tolist() == [True, False, True, True], name
    half = replace(rows, inputs={**rows.inputs, "noisy": rows.inputs["noisy"].bfloat16()})
    renamed = replace(rows, conditioning=Conditioning({f"{k}2": t for k, t in rows.conditioning.tensors.items()}))
    for other_rows in (half, renamed, replace(rows, guidance=2.0), replace(rows, likelihood="steps")):
        assert not (row_keys(other_rows) == keys).all(axis=1).any()


class Counted:
    """A role that answers with its rows' noisy latents, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, rows: Rows, grad: bool = False) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"prediction": rows.inputs["noisy"]}


def banked(folder: Path, role: Counted) -> BankedRole:
    likelihood: Any = DenoisingLikelihood(schedule=None)  # type: ignore[arg-type]
    return BankedRole("reference", role, likelihood, lambda rows: Bank(folder, {**FINGERPRINT, "rows": rows}))


def test_a_banked_role_is_asked_once_about_all_rows_or_not_at_all(tmp_path: Path) -> None:
    role = Counted()
    reference = banked(tmp_path, role)
    first, second = question(), question(seed=1)
    wanted = (first.inputs["noisy"] - first.inputs["target"]).square().flatten(1).mean(1)
    for _ in range(3):
        assert torch.equal(reference(first)["errors"], wanted)
    assert role.calls == 1
    mixed = replace(
        first,
        inputs={k: torch.cat([t[:2], second.inputs[k][2:]]) for k, t in first.inputs.items()},
        conditioning=Conditioning.concatenate([first.conditioning.take([0, 1]), second.conditioning.take([2, 3])]),
    )
    assert torch.equal(reference(mixed)["errors"][:2], wanted[:2]) and role.calls == 2
    reference(mixed)
    assert role.calls == 2
    reference.flush()
    other = Counted()
    assert torch.equal(banked(tmp_path, other)(first)["errors"], wanted) and other.calls == 0
    fewer = replace(
        first, inputs={k: t[:2] for k, t in first.inputs.items()}, conditioning=first.conditioning.take([0, 1])
    )
    banked(tmp_path, other)(fewer)  # a forward of another number of rows may give other bits
    assert other.calls == 1


def test_what_a_bank_cannot_hold_is_refused(tmp_path: Path) -> None:
    reference = banked(tmp_path, Counted())
    with pytest.raises(ConfigError, match="is read from a bank and gives no gradients"):
        reference(question(), grad=True)
    with pytest.raises(ConfigError, match=r"bank\.slots: must be 0 with a method that makes its inputs with a trained"):
        reference(replace(question(), depends_on=frozenset({"policy"})))
    reference(replace(question(), depends_on=frozenset({"reference"})))
    double = question()
    wide = replace(double, inputs={**double.inputs, "noisy": double.inputs["noisy"].double()})
    with pytest.raises(ConfigError, match=r"a bank holds float32 numbers, got torch\.float64"):
        reference(wide)


def test_every_change_of_a_fingerprint_is_another_folder(tmp_path: Path) -> None:
    places = {bank_folder(tmp_path, f) for f in ({}, FINGERPRINT, {**FINGERPRINT, "threads": 2}, {"weights": "abc"})}
    assert len(places) == 4
    assert bank_folder(tmp_path, dict(reversed(FINGERPRINT.items()))) == bank_folder(tmp_path, FINGERPRINT)
