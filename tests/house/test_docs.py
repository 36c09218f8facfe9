"""Every module imports, says what it is for, keeps its promises in `__all__`, and its examples are true."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import diffpref


def module_names() -> list[str]:
    """Return every module that an installation holds."""
    names = []
    for folder in ("", ".pipelines", ".rewards"):
        package = importlib.import_module(f"diffpref{folder}")
        names.append(package.__name__)
        names += [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=_raise)]
    return sorted({name for name in names if not name.endswith("__main__")})


def _raise(name: str) -> None:
    raise ImportError(name)


@pytest.fixture(scope="module")
def loaded() -> list[ModuleType]:
    return [importlib.import_module(name) for name in module_names()]


def test_every_module_says_what_it_is_for(loaded: list[ModuleType]) -> None:
    silent = [m.__name__ for m in loaded if not m.__doc__ and m.__file__ and Path(m.__file__).stat().st_size]
    assert silent == []


def test_every_public_name_exists_and_is_documented(loaded: list[ModuleType]) -> None:
    wrong = []
    for module in loaded:
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            is_ours = getattr(thing, "__module__", "").startswith("diffpref")
            if is_ours and (inspect.isfunction(thing) or inspect.isclass(thing)) and not inspect.getdoc(thing):
                wrong.append(f"{module.__name__}.{name}")
    assert wrong == []


def test_the_examples_in_docstrings_are_true(loaded: list[ModuleType]) -> None:
    results = {m.__name__: doctest.testmod(m) for m in loaded}
    assert {name for name, result in results.items() if result.failed} == set()
    assert sum(result.attempted for result in results.values()) > 0


def test_the_package_has_a_version() -> None:
    assert diffpref.__version__.count(".") == 2
