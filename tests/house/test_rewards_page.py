"""The page of rewards shows every reward as it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from diffpref import rewards

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rewarded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_rewarded", ROOT / "docs" / "rewarded.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_as_the_code_is(rewarded: ModuleType) -> None:
    text = rewarded.PAGE.read_text(encoding="utf-8")
    assert text == rewarded.page(text), "run: python docs/rewarded.py"
    rows = [line.split("`")[1] for line in rewarded.table().splitlines()[2:]]
    assert rows == rewards.names()


def test_what_items_are_scored_is_read_from_the_module(rewarded: ModuleType) -> None:
    kinds = {name: rewarded.media_of(name) for name in ("pickscore", "words", "flicker", "oracle", "ensemble")}
    assert kinds.pop("oracle") == "image, video"
    assert kinds == {"pickscore": "image", "words": "text", "flicker": "video", "ensemble": rewarded.INSIDE}
