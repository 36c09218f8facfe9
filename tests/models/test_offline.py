"""Without network: what is on this machine works, what is not is named, and nobody tries to connect."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffpref.cli import main
from diffpref.core.errors import ModelError
from diffpref.models import load_family

ABSENT = "somebody/some-model-that-is-not-here"


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Every address that somebody tried to reach or to look up."""
    tried: list[object] = []
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def local(host: object) -> bool:
        return host in (None, "localhost", "::1") or str(host).startswith("127.")

    def watched_connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not local(address[0]):
            tried.append(address)
        connect(self, address)

    def watched_lookup(host: Any, *arguments: Any, **options: Any) -> Any:
        if local(host):
            return lookup(host, *arguments, **options)
        tried.append(host)
        raise socket.gaierror(f"tests have no network: lookup of {host} refused")

    monkeypatch.setattr(socket.socket, "connect", watched_connect)
    monkeypatch.setattr(socket, "getaddrinfo", watched_lookup)
    yield tried


def test_row_29_training_from_local_paths_connects_to_nothing(
    recipe_keys: Callable[..., dict[str, Any]], tmp_path: Path, attempts: list[object]
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_keys(training__steps=1)))
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 0
    assert load_family("sdxl", "bundled:shapes-sdxl", parts=("network",)).network is not None
    assert attempts == []


def test_row_29_offline_a_model_that_is_not_here_is_named(
    recipe_keys: Callable[..., dict[str, Any]],
    tmp_path: Path,
    attempts: list[object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_keys(model__path=ABSENT)))
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert f"model.path: {ABSENT} is neither a folder nor a hub id that can be reached" in line
    assert attempts == []  # offline means that nobody asks
    from diffpref import rewards

    with pytest.raises(ModelError, match=ABSENT) as error:
        rewards.load("pickscore", ABSENT)
    assert "\n" not in str(error.value) and attempts == []


def test_row_29_an_unreachable_hub_is_one_line_that_names_the_model(
    attempts: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the attempts
    with pytest.raises(ModelError, match=f"^model.path: {ABSENT} is neither a folder nor a hub id") as error:
        load_family("sdxl", ABSENT)
    assert "\n" not in str(error.value)
    assert attempts  # it was tried
