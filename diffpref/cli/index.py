"""``diffpref index``: write checksums and counts beside data, so that damage is noticed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from diffpref.cli._arguments import Parser

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Write ``index.json`` beside a source, then say what it lists."""
    parser = Parser(
        prog="diffpref index",
        description="List the files of a source with sizes, rows and checksums; from then on every reader compares.",
    )
    parser.add_argument("source", metavar="SOURCE", help=".tar, .parquet or .jsonl files, or a folder of pictures")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.read(argv)

    from diffpref.data import index_source

    entries = index_source(arguments.source)
    if arguments.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=1, ensure_ascii=False))
        return 0
    rows, size = sum(entry.num_rows for entry in entries), sum(entry.bytes for entry in entries)
    print(f"{arguments.source}: {len(entries):,} files, {rows:,} rows, {size:,} bytes listed in index.json")
    return 0
