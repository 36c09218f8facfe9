"""Everything that must survive is written through one place, and whatever fails there leaves the old or the new."""

from __future__ import annotations

import ast
import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffpref.cache.tensors import TensorCache
from diffpref.config import build_recipe, load_recipe, save_recipe
from diffpref.core.contracts import Candidate, Record
from diffpref.core.failpoints import fail_at
from diffpref.core.files import publish_file, read_json, write_json
from diffpref.data import read_store, write_store
from diffpref.generation.growing import GrowingStore
from diffpref.rewards._score_cache import ScoreFiles

ROOT = Path(__file__).parents[2]
SEAM = "diffpref/core/files.py"
LOCKS = {"diffpref/training/lock.py", "diffpref/generation/claims.py"}
"""They write who holds a file, into that file."""
IN_MEMORY = {"diffpref/plotting/clips.py"}
"""They open what is no file on a disk."""
WRITES = {"write_text", "write_bytes", "rename", "ftruncate", "truncate", "touch"}
OF_OS = {"write", "replace", "rename", "renames", "truncate"}


def writes(path: Path) -> list[str]:
    """Return the calls of a module that write to the file system by themselves."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        modes = [a.value for a in [*node.args[1:2], *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
        opened = name.rsplit(".", 1)[-1] == "open" and any(isinstance(m, str) and set(m) & set("wax+") for m in modes)
        if opened or name.rsplit(".", 1)[-1] in WRITES or name in {f"os.{called}" for called in OF_OS}:
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    return found


def test_row_04_nothing_is_written_past_the_place_where_faults_are_injected() -> None:
    modules = [p for top in ("diffpref", "pipelines", "rewards") for p in sorted((ROOT / top).rglob("*.py"))]
    assert writes(ROOT / SEAM)  # the check sees what it looks for
    allowed = {SEAM, *LOCKS, *IN_MEMORY}
    assert [w for p in modules if str(p.relative_to(ROOT)) not in allowed for w in writes(p)] == []


def _recipe(folder: Path) -> None:
    keys = {"output": "out", "method": "sft", "model": {"family": "sd", "path": "x"}, "data": {"source": "y"}}
    save_recipe(build_recipe(keys, {"seed": 1}), folder / "config.yaml")


def _cache(folder: Path) -> None:
    TensorCache(folder).add({"a": {"x": torch.ones(3)}})


def _store(folder: Path) -> None:
    write_store(folder / "store", [Record("r", "a red circle", (Candidate(bytes=b"1"),))], replace=True)


def _growing(folder: Path) -> None:
    store = GrowingStore(folder / "grown", {"prompts": ["a"]}, 1)
    store.fill(lambda number: [Record("r", "a", (Candidate(bytes=b"1"),))])
    store.finish()


def _file(folder: Path) -> None:
    with publish_file(folder / "file.json") as path:
        path.write_text("{}")


def _scores(folder: Path) -> None:
    files = ScoreFiles(folder)
    files.add({key: value for key, value in {"a": 0.5}.items() if key not in files.find(["a"])})
    files.add({"b": 1.0})


def _json(folder: Path) -> None:
    write_json(folder / "value.json", {"a": 1})


WRITERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "recipe": (_recipe, lambda folder: load_recipe(folder / "config.yaml").seed == 1),
    "tensor cache": (_cache, lambda folder: TensorCache(folder).get("a")["x"].sum() == 3),
    "store": (_store, lambda folder: len(read_store(folder / "store")) == 1),
    "growing store": (_growing, lambda folder: len(read_store(folder / "grown")) == 1),
    "file of a library": (_file, lambda folder: read_json(folder / "file.json") == {}),
    "scores": (_scores, lambda folder: ScoreFiles(folder).find(["a", "b"]) == {"a": 0.5, "b": 1.0}),
    "json": (_json, lambda folder: read_json(folder / "value.json") == {"a": 1}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_row_04_whichever_write_fails_the_next_attempt_succeeds_and_nothing_half_written_is_seen(
    tmp_path: Path, name: str
) -> None:
    write, is_whole = WRITERS[name]
    for n in range(1, 100):
        folder = tmp_path / str(n)
        folder.mkdir()
        with fail_at(n, OSError(errno.ENOSPC, "No space left on device")) as failpoint:
            try:
                write(folder)
            except OSError as error:
                assert error.errno == errno.ENOSPC
        leftovers = [path for path in folder.rglob(".*") if not path.name.startswith(".claims")]
        assert not leftovers, failpoint.passed[-1]
        write(folder)
        assert is_whole(folder), failpoint.passed[-1]
        if not failpoint.fired:
            assert n > 3
            return
    raise AssertionError("there is always one write more")
