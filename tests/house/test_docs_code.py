"""What the pages of the documentation show runs: each page from its first block to its last, in a folder of its own.

`docs/howto/add_a_page.md` tells the rules. Commands run in this process, so that a page costs no start of Python.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffpref.cli import main
from diffpref.cli.registries import REGISTRIES, registry
from diffpref.config import load_recipe, parse_yaml, save_recipe
from diffpref.shapes.grammar import captions

ROOT = Path(__file__).parents[2]
PAGES = {path.relative_to(ROOT / "docs").as_posix(): path for path in sorted((ROOT / "docs").rglob("*.md"))}
PAGES = {name: path for name, path in PAGES.items() if not name.startswith("generated/")}
BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = {"text", "json", "console", "{toctree}"}

FEW = "--training.steps 2 --training.batch_size 2 --training.accumulation 1 --model.precision fp32"
SMALL = {  # the beginning of a command -> flags that make it small
    "diffpref cache": "",
    "diffpref caption": "",
    "diffpref cite": "",
    "diffpref evaluate": "--num_inference_steps 1 --batch_size 2",
    "diffpref explain": "",
    "diffpref export": "",
    "diffpref index": "",
    "diffpref generate": "--resolution 64 --candidates 2 --num_inference_steps 1 --model.precision fp32",
    "diffpref list": "",
    "diffpref loop": "--rounds 1 --prompts words:unseen:24 --set training.training.steps=1",
    "diffpref reward train": FEW,
    "diffpref reward": "",
    "diffpref score": "",
    "diffpref train": FEW,
    "diffpref validate": "",
}


def blocks(text: str) -> list[tuple[str, str]]:
    return [(found[1].strip(), found[2]) for found in BLOCK.finditer(text)]


def lines(block: str) -> list[str]:
    joined = block.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_a_title_and_blocks_of_known_kinds(page: str) -> None:
    text = PAGES[page].read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert {kind for kind, _ in blocks(text)} <= {"bash", "python", "yaml"} | SHOWN
    assert text.count("\n```") == 2 * len(blocks(text))
    commands = [line for kind, block in blocks(text) if kind == "bash" for line in lines(block)]
    assert [line for line in commands if not line.startswith(tuple(SMALL))] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", PAGES[page].read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (PAGES[page].parent / link).is_file()] == []


@pytest.fixture
def registries() -> Iterator[None]:
    """Forget afterwards what a page has registered."""
    found = [registry(kind) for kind in REGISTRIES]
    for one in found:
        for name in one.names():
            one.get(name)  # what is there by itself stays
    kept = [(one, [dict(table) for table in (one._things, one._aliases, one._origins)]) for one in found]
    yield
    for one, tables in kept:
        for table, before in zip((one._things, one._aliases, one._origins), tables, strict=True):
            table.clear()
            table.update(before)


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scored_store: Path, recipe_keys: Callable[..., dict[str, Any]]
) -> Path:
    """The folder in which a page's blocks run, and what they may find there."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scored_store, tmp_path / "data" / "pairs")
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "part.jsonl").write_text('{"prompt": "p", "chosen": "a.png", "rejected": "b.png"}\n')
    (tmp_path / "prompts.txt").write_text("".join(f"{text}\n" for text in captions("seen")[:4]), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_keys(output="runs/mine", training__steps=2)))
    return tmp_path


@pytest.mark.parametrize("page", [name for name, path in PAGES.items() if "```" in path.read_text(encoding="utf-8")])
def test_row_45_a_page_runs(page: str, folder: Path, registries: None) -> None:
    text = PAGES[page].read_text(encoding="utf-8")
    if "runs/sdxl" in text:
        assert main(["train", "recipe.yaml", "--output", "runs/sdxl"]) == 0
    names: dict[str, Any] = {"__name__": "page"}
    for kind, block in blocks(text):
        if kind == "python":
            exec(compile(block, page, "exec", dont_inherit=True), names)
        elif kind == "yaml":
            save_recipe(load_recipe("recipe.yaml", parse_yaml(block, where=page)), "recipe.yaml")
        elif kind == "bash":
            for line in lines(block):
                small = next(flags for start, flags in SMALL.items() if line.startswith(start))
                words = [*shlex.split(line, comments=True), *small.split()]
                assert main(words[1:]) == 0, line
