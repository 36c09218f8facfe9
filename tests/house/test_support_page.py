"""The page of the support matrix is made of what the tests found, and of nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from method_cases import FAMILIES, cases

SCRIPT = Path(__file__).parents[2] / "docs" / "supported.py"
RESULTS = """<testsuites><testsuite>
<testcase classname="t" name="test_a_method_trains_goes_on_and_exports[one-sd]"/>
<testcase classname="t" name="test_a_method_trains_goes_on_and_exports[one-sd3]"><failure message="x"/></testcase>
<testcase classname="t" name="test_a_method_trains_goes_on_and_exports[dense_dpo-sd]">
<skipped message="pictures have no segments"/></testcase>
<testcase classname="t" name="test_a_method_trains_goes_on_and_exports[dense_dpo-sd3]">
<skipped message="pictures have no segments"/></testcase>
<testcase classname="t" name="test_every_method_of_denoisers_has_a_row"/>
</testsuite></testsuites>"""


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("supported", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_cell_is_what_its_test_found(script: Any, tmp_path: Path) -> None:
    (tmp_path / "matrix.xml").write_text(RESULTS)
    lines = script.page(script.outcomes(tmp_path / "matrix.xml")).splitlines()
    assert lines[-6:] == [
        "| method | `sd` | `sd3` |",
        "| --- | --- | --- |",
        "| `one` | yes | fails |",
        "| `dense_dpo` | - (1) | - (1) |",
        "",
        "(1) pictures have no segments.",
    ]


def test_a_file_without_the_matrix_is_refused(script: Any, tmp_path: Path) -> None:
    (tmp_path / "other.xml").write_text("<testsuites/>")
    with pytest.raises(ValueError, match=r"no test of the matrix in this file; run tests/methods/test_support_matrix"):
        script.page(script.outcomes(tmp_path / "other.xml"))


def test_the_page_is_of_every_method_and_family_of_the_matrix_and_nothing_fails(script: Any) -> None:
    """Stale; run the matrix, then: python docs/supported.py FILE."""
    text = script.PAGE.read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    head, _, *body = rows
    assert head == ["method", *FAMILIES]
    known = cases()
    assert [row[0] for row in body] == list(known)
    for method, *found in body:
        empty = [family for family, cell in zip(FAMILIES, found, strict=True) if cell != "yes"]
        assert empty == [family for family in FAMILIES if family in known[method].empty], method
    assert all(f") {reason}." in text for case in known.values() for reason in case.empty.values())
