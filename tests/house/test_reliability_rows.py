"""Each fault that the library promises to stand has a test with its number in the name; the rest say what they wait
for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

TESTS = Path(__file__).parents[1]
ROWS: dict[int, dict[str, Any]] = yaml.safe_load((TESTS / "house" / "reliability_rows.yaml").read_text())


def row_of(name: str) -> int | None:
    """Return the row of a test's name.

    >>> row_of("test_row_05_a_flipped_byte_is_found")
    5
    """
    head, _, rest = name.removeprefix("test_row_").partition("_")
    return int(head) if name.startswith("test_row_") and len(head) == 2 and head.isdecimal() and rest else None


def functions() -> Iterator[str]:
    """Yield the names of all test functions of the repository."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.name


def test_every_fault_has_a_test_or_says_what_it_waits_for() -> None:
    assert list(ROWS) == list(range(1, 46))
    assert all(set(row) <= {"fault", "waits"} and all(row.values()) for row in ROWS.values())
    tested = {row_of(name) for name in functions()} - {None}
    required = {number for number, row in ROWS.items() if "waits" not in row}
    assert {number: ROWS[number]["fault"] for number in required - tested} == {}


def test_a_name_that_speaks_of_a_row_is_read_as_one() -> None:
    """A misspelt number would count for nothing."""
    speaking = [name for name in functions() if "row_" in name and any(c.isdigit() for c in name.split("row_")[1][:2])]
    assert [name for name in speaking if row_of(name) not in ROWS] == []
    assert row_of("test_row_5_x") is None and row_of("test_row_05_x") == 5 and row_of("test_row_05") is None
