"""Registries: found by name and alias, misspelt with a hint, never twice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from diffpref.core import registry as module
from diffpref.core.errors import ConfigError
from diffpref.core.registry import Registry


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable package of two things, ``red`` and ``blue``, each in a module of its name."""
    name = f"colours_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from diffpref.core.registry import Registry\n"
        f"light = Registry('colour', '{name}')\nheavy = Registry('colour', '{name}', lazy=True)\nimported = []\n"
    )
    for colour in ("red", "blue"):
        (folder / f"{colour}.py").write_text(
            f"import {name} as package\npackage.imported.append('{colour}')\n"
            f"def {colour}(): return '{colour}'\n"
            f"package.light.register('{colour}', aliases=('{colour}ish',))({colour})\n"
            f"package.heavy.register('{colour}')({colour})\n"
        )
    (folder / "_private.py").write_text("raise RuntimeError('must not be imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    for key in [key for key in sys.modules if key.split(".")[0] == name]:
        del sys.modules[key]


def load(name: str) -> Any:
    return __import__(name)


def test_things_are_found_by_name_and_by_alias(package: str) -> None:
    light = load(package).light
    assert light.names() == ["blue", "red"] == list(light)
    assert light.get("red")() == light.get("redish")() == "red"
    assert light.canonical("redish") == "red" and light.aliases("red") == ["redish"]
    assert "red" in light and "redish" in light and "green" not in light and 3 not in light


def test_a_lazy_registry_lists_without_importing_and_imports_on_use(package: str) -> None:
    colours = load(package)
    assert colours.heavy.names() == ["blue", "red"] and colours.imported == []
    assert colours.heavy.get("blue")() == "blue" and colours.imported == ["blue"]


def test_a_lazy_module_that_registers_nothing_is_said(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "empty.py").write_text("")
    with pytest.raises(ConfigError, match=r"empty registers no colour 'empty'"):
        load(package).heavy.get("empty")


def test_a_misspelt_name_gets_a_hint_and_the_list(package: str) -> None:
    with pytest.raises(ConfigError, match="unknown colour 'bleu'; did you mean 'blue'\\? known: blue, red"):
        load(package).light.get("bleu")
    with pytest.raises(ConfigError, match="unknown colour 'xyzzy'; known: blue, red"):
        load(package).light.get("xyzzy")
    light = load(package).light
    for number in range(40):
        light.register(f"shade_{number}")(len)
    with pytest.raises(
        ConfigError, match="unknown colour 'bleu'; did you mean 'blue'\\? known: 42 names, see 'diffpref l"
    ):
        light.get("bleu")


def test_a_name_or_alias_cannot_be_taken_twice(package: str) -> None:
    light = load(package).light
    light.names()

    def other() -> None: ...

    for word, aliases in (("red", ()), ("redish", ()), ("green", ("red",)), ("green", ("redish",))):
        with pytest.raises(ConfigError, match="registered twice"):
            light.register(word, aliases=aliases)(other)
    assert light.get("red")() == "red"


def test_registering_the_same_thing_again_is_no_mistake(package: str) -> None:
    light = load(package).light
    red = light.get("red")
    assert light.register("red", aliases=("redish",))(red) is red


def test_other_distributions_take_part_through_entry_points(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "ultraviolet"

        def load(self) -> Any:
            return lambda: "ultraviolet"

    asked = []

    def points(*, group: str) -> list[Point]:
        asked.append(group)
        return [Point()]

    monkeypatch.setattr(module, "entry_points", points)
    registry: Registry[Any] = Registry("colour", package, lazy=True, group="other.group")
    assert registry.get("ultraviolet")() == "ultraviolet"
    assert registry.names() == ["blue", "red", "ultraviolet"] and asked == ["other.group"]
