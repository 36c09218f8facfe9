"""The rows of the house: arrows point down, never sideways between rooms of a row."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = (
    ("core",),
    ("likelihood", "objectives", "schedules", "ranking", "shapes", "words", "config"),
    ("models", "data", "plotting"),
    ("sampling", "rewards", "cache"),
    ("methods", "pipelines"),
    ("training", "generation", "evaluation"),
    ("arena", "loops", "pretraining"),
    ("cli",),
    ("__init__", "__main__", "train"),  # ways in
)
ROW = {room: row for row, rooms in enumerate(ROWS) for room in rooms}
MODEL_LIBRARIES = {"accelerate", "datasets", "diffusers", "open_clip", "peft", "transformers"}
OTHER_NAMES = {"PIL": "pillow", "open_clip": "open_clip_torch", "yaml": "pyyaml", "huggingface_hub": "huggingface-hub"}
OPTIONAL = {
    "av",
    "bitsandbytes",
    "gguf",
    "rapidocr",
    "xformers",
}  # extras, imported in functions


def modules() -> dict[str, Path]:
    """Return module name -> file, by the names under which the modules are installed."""
    found = {}
    for folder, package in (
        ("diffpref", "diffpref"),
        ("pipelines", "diffpref.pipelines"),
        ("rewards", "diffpref.rewards"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts))] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of every import, those in functions and by `importlib.import_module` too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "import_module":
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)


def room(module: str) -> str | None:
    """Return the room of a module of ours; the package itself has none that an import could misuse."""
    parts = module.split(".")
    if parts[0] != "diffpref" or len(parts) == 1 or parts[1].startswith("__version"):
        return None
    return parts[1]


def wrong_arrows(module: str, found: Iterator[tuple[int, str]]) -> list[str]:
    here = room(module)
    assert here in ROW, f"room '{here}' stands in no row; put it into ROWS"
    wrong = []
    for line, target in found:
        there = room(target)
        if there is None or there == here:
            continue
        if there not in ROW or ROW[there] >= ROW[here]:
            wrong.append(f"{module}:{line} imports {target}")
    return wrong


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_down(module: str) -> None:
    assert wrong_arrows(module, imports(MODULES[module])) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("diffpref.core.x", "from diffpref.config import Section"),
        ("diffpref.objectives.x", "import diffpref.likelihood.denoising"),
        ("diffpref.methods.x", "def f():\n    from diffpref import generation"),
        ("diffpref.training.x", "from diffpref.evaluation.report import write"),
        ("diffpref.data.x", "import importlib\nimportlib.import_module('diffpref.rewards')"),
        ("diffpref.data.x", "from diffpref import load_recipe"),
    ],
)
def test_the_reader_of_imports_sees_a_wrong_arrow(module: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(line)
    assert len(wrong_arrows(module, imports(path))) == 1


def test_mathematics_knows_no_model_library() -> None:
    light = [module for module in MODULES if ROW.get(room(module) or "", 9) <= 1]
    found = [(m, name) for m in light for _, name in imports(MODULES[m]) if name.split(".")[0] in MODEL_LIBRARIES]
    assert found == []


def test_what_is_imported_is_declared() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    declared = {re.split(r"[<>=~!\[]", line)[0] for line in parser["options"]["install_requires"].split()}
    used = {name.split(".")[0] for path in MODULES.values() for _, name in imports(path)}
    third_party = used - set(sys.stdlib_module_names) - {"diffpref"} - OPTIONAL
    names = {OTHER_NAMES.get(name, name) for name in third_party}
    assert names - declared == set()
