"""The wheel holds what the tree holds, and works from elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import diffpref

ROOT = Path(__file__).parents[2]
DATA = {".yaml", ".json", ".txt", ".safetensors", ".md"}
MAX_BYTES = 50 * 10**6

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy: what an earlier build left in the tree must not slip in, nor be left there."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("diffpref", "pipelines", "rewards"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".tmp-*"))
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", folder, source],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def source(wheel: Path) -> Path:
    """The copy of the tree that the wheel was built from."""
    return wheel.parent / "source"


def test_row_44_the_wheel_holds_exactly_the_files_of_the_tree(wheel: Path, source: Path) -> None:
    expected = set()
    for folder, package in (
        ("diffpref", "diffpref"),
        ("pipelines", "diffpref/pipelines"),
        ("rewards", "diffpref/rewards"),
    ):
        for path in (source / folder).rglob("*"):
            inside = path.relative_to(source / folder)
            is_data = inside.parts[0] in ("assets", "recipes") and path.suffix in DATA
            if path.suffix == ".py" or path.name == "py.typed" or is_data:
                expected.add(f"{package}/{inside.as_posix()}")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected


def test_every_bundled_file_is_of_a_kind_that_the_wheel_takes() -> None:
    bundled = [p for name in ("assets", "recipes") for p in (ROOT / "diffpref" / name).rglob("*") if p.is_file()]
    assert [str(path) for path in bundled if path.suffix not in DATA] == []


def test_row_44_the_wheel_is_small_and_carries_licence_and_command(wheel: Path) -> None:
    assert wheel.stat().st_size <= MAX_BYTES
    archive = zipfile.ZipFile(wheel)
    information = {name.split(".dist-info/")[1]: name for name in archive.namelist() if ".dist-info/" in name}
    assert "licenses/LICENSE" in information
    assert "diffpref = diffpref.cli:main" in archive.read(information["entry_points.txt"]).decode()
    assert "License-Expression: Apache-2.0" in archive.read(information["METADATA"]).decode()


def test_row_44_the_installed_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*command: object) -> str:
        words = [str(word) for word in command]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = (
        "import diffpref, diffpref.pipelines, diffpref.rewards, diffpref.config as c\n"
        "print(diffpref.__file__, diffpref.pipelines.__file__, diffpref.rewards.__file__, sep='\\n')\n"
        "print(len(c.recipe_names()))\n"
    )
    *files, num_recipes = run(sys.executable, "-c", code).split()
    assert all(Path(file).is_relative_to(site) for file in files)
    assert int(num_recipes) == len(list((ROOT / "diffpref" / "recipes").rglob("*.yaml")))
    assert (site / "diffpref" / "py.typed").is_file()
    command = site / "bin" / "diffpref"  # the entry point, as it is put on a path
    assert run(sys.executable, command, "--version") == f"diffpref {diffpref.__version__}\n"
    words = ("--data.source", tmp_path, "--output", tmp_path / "run")
    assert run(sys.executable, command, "validate", "sdxl/diffusion_dpo_lora", *words) == "ok\n"
