"""Every write fails once: what was there stays, nothing half-written stays, and the message says where and how much."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from diffpref.config import build_recipe
from diffpref.core.errors import CheckpointError, DiskFullError
from diffpref.core.failpoints import Failpoint, fail_at
from diffpref.core.files import append_line, publish_folder, write_atomic, write_json
from diffpref.training import Trainer
from diffpref.training.checkpoints import list_checkpoints, newest_checkpoint, open_checkpoint, save_checkpoint
from diffpref.training.disk import writing
from diffpref.training.log import MetricsLog, read_metrics

Keys = Callable[..., dict[str, Any]]
MOST = 200


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def each_fault(error: Callable[[], BaseException] = full) -> Iterator[Failpoint]:
    """Yield armed faults, one further on each time, until there is no point left that could fail."""
    for n in range(1, MOST):
        with fail_at(n, error()) as failpoint:
            yield failpoint
        if not failpoint.fired:
            assert n > 1, "nothing was written through the seam"
            return
    raise AssertionError(f"still failing after {MOST} points")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


PARTS = {"policy": {"w": torch.arange(1000.0)}, "optimizer": {"m": torch.zeros(10), "none": torch.zeros(0)}}


def test_row_04_every_write_of_a_checkpoint_may_find_the_disk_full(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, PARTS, {}, 2)
    before, failed = snapshot(tmp_path), []
    for failpoint in each_fault():
        try:
            save_checkpoint(tmp_path, 2, PARTS, {}, 2)
        except DiskFullError as error:
            assert f"{tmp_path}/checkpoints/step-000002: no space left (No space left on device)" in str(error)
            assert "about 4,040 bytes are needed" in str(error) and "older checkpoints are intact" in str(error)
            assert "\n" not in str(error)
            failed.append(failpoint.passed[-1])
        now = snapshot(tmp_path)
        assert {name: now[name] for name in before} == before
        if failpoint.fired and failed[-1] == "sync checkpoints":  # it was published, and is whole; only its name may
            open_checkpoint(tmp_path / "checkpoints/step-000002")  # not yet be on the disk
            break
        assert now == before or not failpoint.fired
        assert not list(tmp_path.rglob(".*"))
    assert {"open policy.safetensors", "write optimizer.safetensors", "sync counters.json", "rename manifest.json"} <= {
        *failed
    }
    assert failed[-2].startswith("rename .tmp-step-000002-")


def test_row_04_a_bad_checkpoint_that_is_being_replaced_stays_until_the_new_one_is_there(tmp_path: Path) -> None:
    damaged = save_checkpoint(tmp_path, 1, PARTS, {}, 2)
    (damaged / "counters.json").write_text("{}")
    before = snapshot(tmp_path)
    for failpoint in each_fault():
        try:
            save_checkpoint(tmp_path, 1, PARTS, {}, 2)
        except DiskFullError:
            if failpoint.passed[-1] == "sync checkpoints":
                break
            assert snapshot(tmp_path) == before and not list(tmp_path.rglob(".*"))
    assert open_checkpoint(damaged).step == 1


def test_row_04_every_other_write_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    def publish() -> None:
        with publish_folder(tmp_path / "lora", replace=True) as folder:
            (folder / "weights").write_bytes(b"new")

    writes: dict[str, tuple[Callable[[], None], str]] = {
        "config.yaml": (lambda: write_atomic(tmp_path / "config.yaml", b"new"), "new"),
        "value.json": (lambda: write_json(tmp_path / "value.json", "new"), '"new"\n'),
        "metrics.jsonl": (lambda: append_line(tmp_path / "metrics.jsonl", "new"), "old\nnew\n"),
        "lora/weights": (publish, "new"),
    }
    for name, (write, new) in writes.items():
        for n in range(1, MOST):
            write_atomic(tmp_path / name, "old\n")
            with fail_at(n, full()) as failpoint:
                try:
                    write()
                except OSError as error:
                    assert error.errno == errno.ENOSPC
            found, last = (tmp_path / name).read_text(), failpoint.passed[-1]
            assert found == (new if not failpoint.fired or last == f"sync {tmp_path.name}" else "old\n"), last
            assert not list(tmp_path.rglob(".*"))
            if not failpoint.fired:
                break
        assert not failpoint.fired and n > 2


def test_row_04_a_kernel_that_takes_a_part_only_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:7]))
    write_atomic(tmp_path / "file", b"0123456789" * 10)
    assert (tmp_path / "file").read_bytes() == b"0123456789" * 10


LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from diffpref.core.errors import DiskFullError
from diffpref.training.checkpoints import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save_checkpoint(Path(sys.argv[1]), 1, {"policy": {"w": torch.zeros(10)}}, {}, 2)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(Path(sys.argv[1]), 2, {"policy": {"w": torch.zeros(100_000)}}, {}, 2)
except DiskFullError as error:
    print(error)
"""


def test_row_04_a_file_that_the_system_does_not_let_grow(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True)
    assert "step-000002: no space left (File too large): about 400,000 bytes are needed" in done.stdout, done.stderr
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]


def test_row_04_what_safetensors_says_in_words_is_understood(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match=r"x: no space left \(ENOSPC\)"), writing(tmp_path / "x", 1, "all else"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(CheckpointError, match=r"x: cannot be written \(Input/output error\); all else is well"):
        with writing(tmp_path / "x", 1, "all else is well"):
            raise OSError(errno.EIO, "Input/output error")


def test_row_04_lines_of_the_log_wait_for_room_or_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, on_full_disk="warn")
    log.write({"step": 1})
    for _ in range(2):
        with fail_at(2, full()), caplog.at_level(logging.WARNING):
            log.write({"step": 2})
    assert len(caplog.messages) == 1 and "metrics.jsonl: no space left" in caplog.messages[0]
    log.write({"step": 3})
    assert [row["step"] for row in read_metrics(log.path)] == [1, 2, 2, 3]
    strict = MetricsLog(log.path, 3)
    with fail_at(2, full()), pytest.raises(DiskFullError, match=r"metrics\.jsonl: no space left .* is whole$"):
        strict.write({"step": 4})
    assert [row["step"] for row in read_metrics(log.path)] == [1, 2, 2, 3]


@pytest.fixture
def trainer(recipe_keys: Keys) -> Trainer:
    """A run in the middle: two updates, the first of them saved."""
    keys = recipe_keys(training={"steps": 4, "batch_size": 2, "checkpoint_every": 1})
    made = Trainer(build_recipe(keys))
    steps = made.steps()
    next(steps)
    next(steps)
    steps.close()
    return made


def with_policy(trainer: Trainer, policy: str) -> None:
    training = trainer.recipe.training.model_copy(update={"on_full_disk": policy})
    trainer.recipe = trainer.recipe.model_copy(update={"training": training})


def test_row_04_a_run_stops_or_goes_on_without_the_checkpoint_as_its_recipe_says(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    before, good = snapshot(trainer.output), trainer.alarms.winner.good
    assert good in (1, 2)
    trainer.step = 3
    with fail_at(5, full()), pytest.raises(DiskFullError, match="step-000003: no space left"):
        trainer.save_checkpoint()
    with_policy(trainer, "warn")
    with fail_at(5, full()), caplog.at_level(logging.WARNING):
        trainer.save_checkpoint()
    (told,) = caplog.messages
    assert "step-000003: no space left" in told and told.endswith("training goes on without it")
    with fail_at(5, full()), pytest.raises(DiskFullError):
        trainer.save_checkpoint(must=True)  # before it stops for a signal
    assert snapshot(trainer.output) == before
    assert trainer.alarms.winner.good == good  # a roll-back cannot go to what was not saved
    trainer.save_checkpoint()
    saved = open_checkpoint(list_checkpoints(trainer.output)[-1])
    assert trainer.alarms.winner.good == saved.counters["alarms"]["winner"]["good"] == 3


def test_row_04_every_write_of_a_real_run_may_find_the_disk_full(trainer: Trainer) -> None:
    """From the next update to the end: the log, the checkpoint, the rotation, the result and the card."""
    saved, passed = list_checkpoints(trainer.output), set()
    for failpoint in each_fault():
        trainer.step = 2
        try:
            trainer.save_checkpoint()
            trainer.step = 3
            trainer._finish()
        except DiskFullError as error:
            assert str(trainer.output) in str(error) and "bytes are needed" in str(error)
        passed.update(failpoint.passed)
        found = newest_checkpoint(trainer.output)
        assert found is not None and (found.step == 3 or list_checkpoints(trainer.output) == saved)
        assert not [path for path in trainer.output.rglob(".*") if path.name != ".lock"]
    assert {"open policy.safetensors", "sync pytorch_lora_weights.safetensors", "rename README.md"} <= passed
    assert not list(trainer.output.rglob(".*"))
