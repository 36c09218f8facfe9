"""What stands at the top level, and that the two mapped folders cannot be imported twice."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

import diffpref

ROOT = Path(__file__).parents[2]


def test_the_licence_is_present_and_declared() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    assert parser["metadata"]["license_expression"] == "Apache-2.0"


def test_pyproject_holds_only_the_build_system() -> None:
    import tomllib

    assert set(tomllib.loads((ROOT / "pyproject.toml").read_text())) == {"build-system"}


def test_every_package_is_listed_by_name() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    listed = set(parser["options"]["packages"].split())
    found = set()
    for folder, package in (
        ("diffpref", "diffpref"),
        ("pipelines", "diffpref.pipelines"),
        ("rewards", "diffpref.rewards"),
    ):
        for path in (ROOT / folder).rglob("*.py"):
            found.add(".".join((package, *path.parent.relative_to(ROOT / folder).parts)))
    assert listed == found


def test_every_package_has_an_init() -> None:
    folders = {path.parent for top in ("diffpref", "pipelines", "rewards") for path in (ROOT / top).rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("name", ["pipelines", "rewards"])
def test_a_second_copy_of_a_mapped_folder_is_refused(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ") and "diffpref" in last


@pytest.mark.parametrize("name", ["pipelines", "rewards"])
def test_the_mapped_folders_are_parts_of_the_package(name: str) -> None:
    module = __import__(f"diffpref.{name}", fromlist=["*"])
    assert Path(module.__file__ or "").parent.name == name


@pytest.mark.parametrize("script", [".ci/run", ".ci/types"])
def test_the_scripts_can_be_run_and_parse(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)


def test_make_knows_its_targets() -> None:
    targets = ["demo", "test", "test-slow", "lint", "docs", "clean"]
    done = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_changelog_speaks_of_this_version_or_of_what_is_unreleased() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text or f"## [{diffpref.__version__}]" in text


def test_there_is_no_drawer_for_odds_and_ends_and_nothing_pickled() -> None:
    files = [path for top in ("diffpref", "pipelines", "rewards") for path in (ROOT / top).rglob("*")]
    assert [p for p in files if p.stem in ("utils", "util", "helpers", "misc")] == []
    assert [p for p in files if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")] == []


def test_code_is_ascii() -> None:
    found = []
    for top in ("diffpref", "pipelines", "rewards"):
        for path in (ROOT / top).rglob("*.py"):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if not line.replace("\N{HORIZONTAL ELLIPSIS}", "").isascii():
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []
