"""Files and folders are complete or absent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from diffpref.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DiffprefError,
    ModelError,
    NonFiniteError,
    ShapeError,
    suggest,
)
from diffpref.core.files import publish_folder, read_json, sha256, write_atomic, write_json


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    with publish_folder(target) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("content")
        assert not target.exists()
    assert (target / "inner" / "file").read_text() == "content"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), publish_folder(tmp_path / "model") as folder:
        (folder / "file").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_folder_as_it_was(tmp_path: Path) -> None:
    with publish_folder(tmp_path / "model") as folder:
        (folder / "old").write_text("old")
    with pytest.raises(RuntimeError), publish_folder(tmp_path / "model", replace=True) as folder:
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "old").read_text() == "old"


def test_a_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    with publish_folder(tmp_path / "model") as folder:
        (folder / "old").write_text("old")
    with pytest.raises(FileExistsError), publish_folder(tmp_path / "model"):
        pass
    with publish_folder(tmp_path / "model", replace=True) as folder:
        (folder / "new").write_text("new")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "file", "one")
    write_atomic(tmp_path / "new" / "file", b"two")
    assert (tmp_path / "new" / "file").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_json_and_checksums(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"a": [1, None, "\u00e9"]})
    assert read_json(tmp_path / "value.json") == {"a": [1, None, "\u00e9"]}
    assert sha256(tmp_path / "value.json") == hashlib.sha256((tmp_path / "value.json").read_bytes()).hexdigest()


def test_every_error_is_one_that_the_command_line_prints_as_a_line() -> None:
    for error in (CheckpointError, ConfigError, DataError, ModelError, NonFiniteError, ShapeError):
        assert issubclass(error, DiffprefError)
    assert issubclass(ConfigError, ValueError) and issubclass(ShapeError, ValueError)


def test_suggestions_are_close_or_absent() -> None:
    assert suggest("smop", ["dpo", "smpo"]) == "; did you mean 'smpo'?"
    assert suggest("zebra", ["dpo", "smpo"]) == ""
