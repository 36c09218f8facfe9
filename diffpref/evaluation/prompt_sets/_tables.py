"""Tables and JSON files of others, read whole, with errors that name the file and the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffpref.core.errors import DataError

__all__ = ["read_json_file", "read_json_lines", "read_lines", "read_table"]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def read_lines(path: Path) -> list[str]:
    """Return the lines that are not empty, without their ends."""
    return [line.strip() for line in _text(path).split("\n") if line.strip()]


def read_json_file(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        DataError: it is no JSON.
    """
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error


def read_json_lines(path: Path, *columns: str) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines.

    Raises:
        DataError: a line is no object, or lacks a column.
    """
    rows = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, {number}: not JSON: {error}") from error
        if not isinstance(row, dict) or not set(columns) <= row.keys():
            found = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise DataError(f"{path}, {number}: expected an object with {', '.join(columns)}, found {found}")
        rows.append(row)
    return rows


def read_table(path: Path, columns: Sequence[str], *, tabs: bool = False) -> list[dict[str, str]]:
    """Return the rows of a table with a head.

    Args:
        path: of the file.
        columns: that must be there.
        tabs: between columns, where quotes are part of the text; else commas, with the usual quoting.

    Raises:
        DataError: a column is missing, or a row has too few or too many.
    """
    lines = _text(path).splitlines(keepends=True)
    try:
        if tabs:
            table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        else:
            table = csv.DictReader(lines, strict=True)
        rows = list(table)
    except csv.Error as error:
        raise DataError(f"{path}: not a table: {error}") from error
    head = table.fieldnames or []
    if missing := [column for column in columns if column not in head]:
        raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(map(str, head)) or 'nothing'}")
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DataError(f"{path}, row {number}: expected {len(head)} columns, found another number")
    return rows
