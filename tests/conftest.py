"""Every test runs on one thread, without network, with the same random examples each time."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "diffpref", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("diffpref")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Any:
    """Refuse connections that leave this machine; the local ones (gloo, notebooks) stay."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else None
        if host is not None and host not in ("localhost", "::1") and not str(host).startswith("127."):
            raise OSError(f"tests have no network: connection to {address} refused")
        connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", refuse)
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Converted checkpoints of the tests stay with the tests."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DIFFPREF_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a StableDiffusionXLPipeline with random weights at toy size."""
    from diffpref.models import registry

    folder = tmp_path_factory.mktemp("models") / "tiny-sdxl"
    registry.get("sdxl").tiny().pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def scored_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 16 captions of the shapes world with three pictures each, scored by the oracle."""
    import numpy as np

    from diffpref.core.contracts import Candidate, Record, Score
    from diffpref.data import encode_png, write_store
    from diffpref.rewards import load
    from diffpref.shapes.grammar import captions
    from diffpref.shapes.render import render

    oracle, seen, records = load("oracle"), captions("seen"), []
    for i in range(16):
        shown = [render(seen[i + 5 * k], np.random.default_rng(3 * i + k)) for k in range(3)]
        scores = oracle.score(shown, [str(seen[i])] * 3).tolist()
        candidates = []
        for k, (pixels, score) in enumerate(zip(shown, scores, strict=True)):
            data = encode_png(pixels)
            told = (Score("oracle", oracle.info.version, score),)
            candidates.append(Candidate(bytes=data, sha256=hashlib.sha256(data).hexdigest(), seed=k, scores=told))
        records.append(Record(id=f"r{i:02d}", prompt=str(seen[i]), candidates=tuple(candidates)))
    folder = tmp_path_factory.mktemp("data") / "store"
    write_store(folder, records)
    return folder


@pytest.fixture(scope="session")
def _encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoded")


@pytest.fixture
def recipe_keys(tiny_sdxl: Path, scored_store: Path, _encoded: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Make the keys of a small training recipe; changes are written ``training__steps=5``."""

    def make(**changes: Any) -> dict[str, Any]:
        keys: dict[str, Any] = {
            "output": str(tmp_path / "run"),
            "model": {"family": "sdxl", "path": str(tiny_sdxl)},
            "data": {"source": str(scored_store), "score": "oracle", "cache": str(_encoded)},
            "method": "diffusion_dpo",
            "optim": {"learning_rate": 1e-4},
            "training": {"steps": 3, "batch_size": 2},
        }
        for path, value in changes.items():
            section, _, name = path.partition("__")
            if name:
                keys[section] = {**keys.get(section, {}), name: value}
            else:
                keys[section] = value
        return keys

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    """Spell out half characters in what a test has logged: between the processes of pytest-xdist only UTF-8 travels."""
    report: Any = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs an accelerator where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no accelerator"))
