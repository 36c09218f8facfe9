"""A cache is either complete or absent, and says so when it is damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffpref.cache import TensorCache
from diffpref.core.errors import DataError


def entry(value: float) -> dict[str, torch.Tensor]:
    return {"mean": torch.full((2, 3), value), "std": torch.tensor(value, dtype=torch.float64)}


def same(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return got.keys() == wanted.keys() and all(
        torch.equal(got[n], t) and got[n].dtype == t.dtype for n, t in wanted.items()
    )


def test_entries_come_back_now_and_in_the_next_run(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path / "cache")
    assert len(cache) == 0 and "a" not in cache
    cache.add({"a": entry(1.0), "b": entry(2.0)})
    cache.add({"c": entry(3.0)})
    for reader in (cache, TensorCache(tmp_path / "cache")):
        assert len(reader) == 3 and {"a", "b", "c"} <= {k for k in "abcd" if k in reader}
        assert same(reader.get("b"), entry(2.0)) and same(reader.get("c"), entry(3.0))


def test_entries_written_twice_are_the_last(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    cache.add({"a": entry(1.0), "b": entry(1.0)})
    cache.add({"a": {"only": torch.ones(1)}, "b": entry(2.0)})
    for reader in (cache, TensorCache(tmp_path)):
        assert len(reader) == 2 and same(reader.get("b"), entry(2.0)) and same(reader.get("a"), {"only": torch.ones(1)})
    cache.add({"b": entry(5.0)})
    assert same(cache.get("b"), entry(5.0)) and same(cache.get("a"), {"only": torch.ones(1)})


def test_views_are_stored_without_what_they_are_views_of(tmp_path: Path) -> None:
    big = torch.randn(100_000)
    TensorCache(tmp_path).add({"a": {"part": big[:4]}, "b": {"part": big[:4].expand(2, 4).t()}})
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) < 2000
    assert torch.equal(TensorCache(tmp_path).get("b")["part"], big[:4].expand(2, 4).t())


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    def half(tensors: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    cache = TensorCache(tmp_path)
    monkeypatch.setattr(safetensors.torch, "save_file", half)
    with pytest.raises(OSError, match="No space left"):
        cache.add({"a": entry(1.0)})
    assert list(tmp_path.iterdir()) == [] and "a" not in cache
    monkeypatch.undo()
    cache.add({"a": entry(1.0)})
    assert "a" in TensorCache(tmp_path)


def test_a_write_that_is_killed_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    script = f"""
import os, signal, torch
import safetensors.torch
from diffpref.cache.tensors import TensorCache
cache = TensorCache({str(tmp_path)!r})
cache.add({{"a": {{"x": torch.ones(3)}}}})
def killed(tensors, path):
    path.write_bytes(b"half a file")
    os.kill(os.getpid(), signal.SIGKILL)
safetensors.torch.save_file = killed
cache.add({{"b": {{"x": torch.ones(3)}}}})
"""
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    cache = TensorCache(tmp_path)
    assert len(cache) == 1 and "a" in cache and "b" not in cache


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_a_damaged_shard_is_named(tmp_path: Path, content: bytes | None) -> None:
    TensorCache(tmp_path).add({"a": entry(1.0)})
    (shard,) = tmp_path.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-5] if content is None else content)
    with pytest.raises(DataError, match="damaged cache shard") as error:
        TensorCache(tmp_path)
    assert str(shard) in str(error.value) and "delete its folder" in str(error.value)
