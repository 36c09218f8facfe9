"""The page of the support matrix is made of what the tests found, and of nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

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
