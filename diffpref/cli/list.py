"""``diffpref list``: what a recipe may name."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffpref.cli.registries import REGISTRIES, description, registry, short_forms

__all__ = ["main"]

KINDS = (*REGISTRIES, "recipes")


def main(argv: Sequence[str]) -> int:
    """Print names, other names, evidence and source."""
    parser = argparse.ArgumentParser(prog="diffpref list", description="List what a recipe may name.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; not given: all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    if unknown := [kind for kind in arguments.kinds if kind not in KINDS]:
        parser.error(f"unknown kind '{unknown[0]}'; known: {', '.join(KINDS)}")
    found = {kind: entries(kind) for kind in arguments.kinds or KINDS}
    if arguments.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        print("\n\n".join(_table(kind, rows) for kind, rows in found.items()))
    return 0


def entries(kind: str) -> list[dict[str, Any]]:
    """Return a dict for each thing of a kind: name, aliases, evidence, and source or summary."""
    if kind == "recipes":
        from diffpref.config import recipe_names

        return [{"name": name} for name in recipe_names()]
    things = registry(kind)
    if things.lazy:  # the modules are heavy; their first line is read, not run
        return [
            {"name": name, "aliases": short_forms(kind, name), "summary": _first_line(f"{things.package}.{name}")}
            for name in things.names()
        ]
    return [{"name": name, "aliases": things.aliases(name), **description(things.get(name))} for name in things.names()]


def _first_line(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:  # added by an entry point
        return ""
    return (ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _table(kind: str, rows: list[dict[str, Any]]) -> str:
    lines = [f"{kind} ({len(rows)})"]
    names = max((len(row["name"]) for row in rows), default=0)
    evidence = max((len(row.get("evidence", "")) for row in rows), default=0)
    for row in rows:
        about = row.get("source") or row.get("summary", "")
        also = f"  (also: {', '.join(row['aliases'])})" if row.get("aliases") else ""
        lines.append(f"  {row['name']:{names}}  {row.get('evidence', ''):{evidence}}  {about}{also}".rstrip())
    return "\n".join(lines)
