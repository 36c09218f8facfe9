"""What the tests of training share: toy objectives, and launching two processes that run many checks."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

Results = list[dict[str, Any]]
LAUNCH = ("-m", "accelerate.commands.launch", "--use_fsdp", "--fsdp_version", "2", "--num_processes", "2")


@pytest.fixture(scope="module")
def run_together(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Results]]:
    """Return a function that runs checks of ``distributed_checks.py`` and returns what each process said of them."""

    def run(checks: Sequence[tuple[str, dict[str, Any], str]]) -> list[Results]:
        folder = tmp_path_factory.mktemp("together")
        (folder / "checks.json").write_text(json.dumps({"results": str(folder), "checks": list(checks)}))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        program = [str(Path(__file__).with_name("distributed_checks.py")), str(folder / "checks.json")]
        command = [sys.executable, *LAUNCH, *program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
        found = [json.loads(path.read_text()) for path in sorted(folder.glob("?.json"))]
        assert done.returncode == 0 and len(found) == 2, done.stderr[-4000:]
        return found

    return run


def _load(name: str) -> Any:
    """Import a file beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pydantic look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def checks() -> Any:
    """The file ``distributed_checks.py``, whose checks may be called in this process too."""
    return _load("distributed_checks")


@pytest.fixture
def toy_objectives() -> Iterator[None]:
    """Register the objectives of ``toy_objectives.py`` for the duration of a test."""
    with _load("toy_objectives").registered():
        yield


@pytest.fixture(scope="module")
def toy_methods() -> Iterator[None]:
    """Register the methods of ``toy_methods.py``, with their objectives, for the tests of a module."""
    with _load("toy_methods").registered():
        yield
