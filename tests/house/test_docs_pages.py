"""Every public name is on a page of the reference, and the site builds without a warning and without network."""

from __future__ import annotations

import importlib
import importlib.util
import re
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from diffpref.cli import COMMANDS
from diffpref.cli.registries import REGISTRIES, description, registry
from diffpref.config import Recipe
from diffpref.config.problems import dotted_names

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DIRECTIVE = re.compile(r"^\.\. auto(?:class|data|exception|function):: ([\w.]+)::(\w+)$", re.MULTILINE)


def load(name: str) -> ModuleType:
    """Import a script of the docs, which is no part of the package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return load("reference").pages()


def public_names() -> list[tuple[str, str]]:
    """Return (module, name) of every ``__all__`` in the files of the tree, found here by the files' names."""
    found = []
    for folder, package in (
        ("diffpref", "diffpref"),
        ("pipelines", "diffpref.pipelines"),
        ("rewards", "diffpref.rewards"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if any(part.startswith("_") for part in parts) or parts == ("train",):
                continue
            name = ".".join((package, *parts))
            found += [(name, public) for public in getattr(importlib.import_module(name), "__all__", ())]
    return found


def test_row_45_every_public_name_is_described_once(pages: dict[str, str]) -> None:
    described = [found for text in pages.values() for found in DIRECTIVE.findall(text)]
    assert len(described) == len(set(described)) > 300
    things = {(id(getattr(importlib.import_module(module), name)), name) for module, name in described}
    missing = []
    for module, name in public_names():
        thing: Any = getattr(importlib.import_module(module), name)
        if isinstance(thing, ModuleType):
            if not any(f".. automodule:: {thing.__name__}\n" in text for text in pages.values()):
                missing.append(f"{module}.{name}")
        elif (module, name) not in described and (id(thing), name) not in things:
            missing.append(f"{module}.{name}")
    assert missing == []


def test_the_section_of_a_module_names_all_that_it_exports(pages: dict[str, str]) -> None:
    missing = []
    for module, name in public_names():
        room = module.split(".")[1] if "." in module else "index"
        text = pages[f"api/{room}.rst"].partition(f".. automodule:: {module}\n")[2].partition("\n.. automodule::")[0]
        if not re.search(rf"\b{re.escape(name)}\b", text):
            missing.append(f"{module}.{name}")
    assert missing == []


def test_names_recipe_and_commands_are_complete(pages: dict[str, str]) -> None:
    headed = re.findall(r"^(\w+)\n~+$", pages["names.rst"], re.MULTILINE)
    assert sorted(headed) == sorted(name for kind in REGISTRIES for name in registry(kind))
    assert re.findall(r"^   \* - ``([\w.]+)``$", pages["recipe.rst"], re.MULTILINE) == list(dotted_names(Recipe))
    assert [f"``diffpref {name}``\n" in pages["commands.rst"] for name in COMMANDS] == [True] * len(COMMANDS)


def test_the_paper_index_is_what_the_registries_say() -> None:
    papers = load("papers")
    assert papers.PAGE.read_text(encoding="utf-8") == papers.paper_index(), "stale; run: python docs/papers.py"
    sources = [description(registry(kind).get(name))["source"] for kind in papers.KINDS for name in registry(kind)]
    numbers = {number for source in sources for number in re.findall(r"arXiv:(\d{4}\.\d{4,5})", source)}
    assert numbers == set(re.findall(r"^## .*\[arXiv:([\d.]+)\]", papers.paper_index(), re.MULTILINE))


def test_the_page_of_objectives_is_what_the_registry_says() -> None:
    formulas = load("formulas")
    assert formulas.PAGE.read_text(encoding="utf-8") == formulas.objectives_page(), (
        "stale; run: python docs/formulas.py"
    )
    text = formulas.objectives_page()
    names = registry("objectives").names()
    assert [name for name in names if f"### {name}\n" not in text] == []
    assert text.count("$$\n") >= 2 * len(names)  # each has a formula


@pytest.mark.slow
def test_row_45_the_site_builds_without_a_warning_and_holds_every_public_name(
    tmp_path: Path, pages: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    build = pytest.importorskip("sphinx.cmd.build", reason="needs the extra 'docs'")
    code = build.build_main(["-W", "--keep-going", "-q", "-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path)])
    assert code == 0, capsys.readouterr().err
    inventory = (tmp_path / "objects.inv").read_bytes().split(b"\n", 4)[4]
    held = {line.split(" ")[0] for line in zlib.decompress(inventory).decode().splitlines()}
    described = {f"{module}.{name}" for text in pages.values() for module, name in DIRECTIVE.findall(text)}
    assert described - held == set()
