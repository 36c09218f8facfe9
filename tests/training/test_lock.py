"""One run, one output folder; a folder that cannot be written is told before anything is loaded."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffpref.config import build_recipe
from diffpref.core.errors import ConfigError
from diffpref.training import Trainer
from diffpref.training.lock import LOCK, OutputLock

Keys = Callable[..., dict[str, Any]]

HOLD = """
import sys, time
from pathlib import Path
from diffpref.training.lock import OutputLock
from diffpref.core.errors import ConfigError
try:
    lock = OutputLock(Path(sys.argv[1]))
except ConfigError as error:
    print(error)
    sys.exit(2)
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""


RACE = """
import os, sys
from pathlib import Path
from diffpref.training.lock import OutputLock
from diffpref.core.errors import ConfigError
for number in range(25):
    (go_read, go), (end_read, end), (told_read, told) = os.pipe(), os.pipe(), os.pipe()
    racers = []
    for _ in range(6):
        racers.append(os.fork())
        if not racers[-1]:
            os.close(go)
            os.close(end)
            os.read(go_read, 1)  # until the parent closes it
            try:
                lock = OutputLock(Path(sys.argv[1]) / str(number % 2))  # new, given back, or left behind
                os.write(told, b"w")
                os.read(end_read, 1)
                if number % 3:
                    lock.release()
            except ConfigError:
                os.write(told, b"l")
            os._exit(0)
    os.close(go)
    seen = b"".join(os.read(told_read, 1) for _ in racers)
    os.close(end)
    for racer in racers:
        os.waitpid(racer, 0)
    for descriptor in (go_read, end_read, told_read, told):
        os.close(descriptor)
    print(seen.decode())
"""


@pytest.fixture(scope="module")
def holder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Another process that has a folder."""
    folder = tmp_path_factory.mktemp("run")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield folder, process
    process.kill()
    process.communicate()


def test_row_30_a_second_run_in_the_same_folder_is_refused_until_the_first_is_gone(
    holder: tuple[Path, subprocess.Popen[str]], recipe_keys: Keys
) -> None:
    folder, process = holder
    told = f"output: {folder} is in use by process {process.pid} on {socket.gethostname()}; wait for it, or choose"
    with pytest.raises(ConfigError, match=told.replace("(", r"\(")):
        OutputLock(folder)
    with pytest.raises(ConfigError, match=told):  # before the data are read
        Trainer(build_recipe(recipe_keys(output=str(folder), data__source="/nowhere"))).setup()
    assert json.loads((folder / LOCK).read_text())["pid"] == process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (folder / LOCK).exists()  # left behind; the kernel knows that nobody holds it
    lock = OutputLock(folder)
    assert json.loads((folder / LOCK).read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}
    lock.release()
    assert not (folder / LOCK).exists()


def test_row_30_of_many_that_start_at_once_exactly_one_wins(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RACE, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rounds = done.stdout.splitlines()
    assert len(rounds) == 25 and {"".join(sorted(told)) for told in rounds} == {"lllllw"}


def test_row_30_where_files_cannot_be_locked_the_process_id_and_the_host_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", unknown)
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pid, host, taken in (
        (os.getppid(), socket.gethostname(), True),
        (gone.pid, socket.gethostname(), False),
        (gone.pid, "elsewhere", True),
    ):
        (tmp_path / LOCK).write_text(json.dumps({"pid": pid, "host": host}))
        if taken:
            with pytest.raises(ConfigError, match=rf"by process {pid} on {host}; .* if that is gone, remove .*{LOCK}"):
                OutputLock(tmp_path)
        else:
            OutputLock(tmp_path).release()
    (tmp_path / LOCK).write_text('{"pid": 1')  # cut by a kill
    OutputLock(tmp_path).release()


def test_a_process_may_begin_again_in_its_own_folder_and_leaves_no_empty_one(tmp_path: Path) -> None:
    OutputLock(tmp_path / "run").release()
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    first, second = OutputLock(tmp_path / "run"), OutputLock(tmp_path / "run")
    second.release()
    first.release()
    assert list((tmp_path / "run").iterdir()) == []  # the folder was there before


def refused(recipe_keys: Keys, output: Path) -> str:
    """Return what is said of an output before the data, which are not there, are read."""
    with pytest.raises(ConfigError) as caught:
        Trainer(build_recipe(recipe_keys(output=str(output), data__source="/nowhere"))).setup()
    return str(caught.value)


def test_row_31_an_output_that_cannot_be_written_is_told_before_anything_is_loaded(
    recipe_keys: Keys, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for output, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "run", "Not a directory")):
        assert refused(recipe_keys, output) == f"output: {output} cannot be written ({reason})"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_row_31_a_read_only_output_is_told_before_anything_is_loaded(recipe_keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o555)
    assert refused(recipe_keys, tmp_path / "run") == f"output: {tmp_path / 'run'} cannot be written (Permission denied)"


def test_row_31_a_read_only_file_system_is_told_before_anything_is_loaded(
    recipe_keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, *arguments: Any, **options: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    (tmp_path / "run").mkdir()
    monkeypatch.setattr("diffpref.training.lock.os.open", read_only)
    told = refused(recipe_keys, tmp_path / "run")
    assert told == f"output: {tmp_path / 'run'} cannot be written (Read-only file system)"


def test_row_31_spaces_and_other_alphabets_are_no_matter(recipe_keys: Keys, tmp_path: Path) -> None:
    output = tmp_path / "\u00fc \u00f1 'x' \u6f22" / "run 1"
    keys = recipe_keys(output=str(output), training={"steps": 2, "batch_size": 2, "checkpoint_every": 1})
    Trainer(build_recipe(keys)).fit()
    again = Trainer(build_recipe({**keys, "training": {**keys["training"], "steps": 3}}))
    assert again.fit() == output and again.step == 3
    assert (output / "lora" / "pytorch_lora_weights.safetensors").is_file() and not (output / LOCK).exists()
