"""``diffpref list``: what a recipe may name."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffpref.cli.registries import REGISTRIES, defined_for, description, needs, registry, short_forms

__all__ = ["main"]

KINDS = (*REGISTRIES, "recipes")
FILTERED = ("objectives", "methods")
FILTERS = ("kind", "likelihood", "needs", "without", "evidence")


def main(argv: Sequence[str]) -> int:
    """Print names, other names, evidence and source."""
    parser = argparse.ArgumentParser(prog="diffpref list", description="List what a recipe may name.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; not given: all")
    parser.add_argument("--kind", help="objectives of a kind: pairwise, pointwise, listwise, token, step, supervised")
    parser.add_argument("--likelihood", help="objectives defined for a likelihood: tokens, denoising")
    parser.add_argument(
        "--needs", metavar="NAME", help="things that need a role, group or column: reference, list, ranks"
    )
    parser.add_argument("--without", metavar="NAME", help="objectives that do not need it: reference")
    parser.add_argument("--evidence", help="how far the source was read: official, paper, secondary, memory, ours")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    if unknown := [kind for kind in arguments.kinds if kind not in KINDS]:
        parser.error(f"unknown kind '{unknown[0]}'; known: {', '.join(KINDS)}")
    wanted = {name: getattr(arguments, name) for name in FILTERS if getattr(arguments, name)}
    kinds = arguments.kinds or (FILTERED if wanted else KINDS)
    if wanted and (others := [kind for kind in kinds if kind not in FILTERED]):
        parser.error(f"--{next(iter(wanted))} chooses among {' and '.join(FILTERED)}, not {', '.join(others)}")
    found = {kind: [row for row in entries(kind) if _fits(row, wanted)] for kind in kinds}
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
    rows = []
    for name in things.names():
        thing = things.get(name)
        row: dict[str, Any] = {"name": name, "aliases": things.aliases(name), **description(thing)}
        if kind in FILTERED:
            row["needs"] = needs(thing)
        if kind == "objectives":
            row |= {"likelihoods": defined_for(thing), "published": list(thing.spec.published)}
        rows.append(row)
    return rows


def _fits(row: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Whether an entry passes every filter; what it does not know it does not fit."""
    tests = {
        "kind": lambda value: row["kind"] == value,
        "evidence": lambda value: row["evidence"] == value,
        "likelihood": lambda value: value in row.get("likelihoods", ()),
        "needs": lambda value: value in row["needs"],
        "without": lambda value: value not in row["needs"],
    }
    return all(tests[name](value) for name, value in wanted.items())


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
