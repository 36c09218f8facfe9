"""Every method id of the specifications is accounted for, and what is claimed of it is there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from diffpref.objectives import registry

ROOT = Path(__file__).parents[2]
IDS = {
    "text_pairwise": 55,
    "text_structured": 61,
    "diffusion_pairwise": 5,
    "diffusion_variants": 9,
    "diffusion_more": 31,
    "rewards_data_eval": 28,
    "ours": 3,
}
"""How many ids each document has; more may be added, for what is ours."""


@pytest.fixture(scope="module")
def covered() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_covered", ROOT / "docs" / "covered.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules.setdefault("docs_covered", importlib.util.module_from_spec(spec))  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("document", IDS)
def test_every_id_is_listed_once_and_is_here_or_waits_for_a_reason(covered: ModuleType, document: str) -> None:
    rows = covered.listed(document)
    ids = [row.id for row in rows]
    assert len(ids) == len(set(ids)) >= IDS[document]
    assert [row.id for row in rows if not (row.objectives or row.files or row.waits)] == []
    assert [row.id for row in rows if row.waits == "not written yet"] == []


@pytest.mark.parametrize("document", IDS)
def test_what_is_claimed_is_there(covered: ModuleType, document: str) -> None:
    for row in covered.listed(document):
        assert [name for name in row.objectives if name not in registry] == [], row.id
        assert [path for path in (*row.files, *row.tests) if not (ROOT / path).is_file()] == [], row.id
        assert row.tests or not row.files, f"{row.id}: files without a test"


def test_no_objective_is_missing_from_the_list(covered: ModuleType) -> None:
    claimed = {
        registry.canonical(name) for document in IDS for row in covered.listed(document) for name in row.objectives
    }
    assert set(registry.names()) - claimed == set()


def test_one_function_with_other_constants_names_one_that_is_there(covered: ModuleType) -> None:
    for name in registry.names():
        same = registry.get(name).spec.same_as
        assert not same or (registry.canonical(same) == same != name and not registry.get(same).spec.same_as)
    assert covered.distinct_functions() >= 85


def test_the_page_is_what_the_list_says(covered: ModuleType) -> None:
    assert covered.PAGE.read_text(encoding="utf-8") == covered.coverage(), "stale; run: python docs/covered.py"
