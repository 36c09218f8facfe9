"""``diffpref cite``: BibTeX of what was used."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from diffpref.cli.registries import description, registry
from diffpref.core.citation import bibtex
from diffpref.core.errors import ConfigError, suggest

__all__ = ["main", "sources"]

KINDS = ("objectives", "methods")


def main(argv: Sequence[str]) -> int:
    """Print an entry for each source of the named objectives and methods."""
    parser = argparse.ArgumentParser(prog="diffpref cite", description="Print BibTeX of objectives and methods.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="an objective or a method")
    names = parser.parse_args(argv).names
    entries: dict[str, str] = {}
    for entry in (entry for name in names for source in sources(name) for entry in bibtex(source)):
        key = entry.partition(",")[0]  # an objective and its method may cite one paper; the fuller entry stays
        entries[key] = max(entries.get(key, ""), entry, key=len)
    print("\n\n".join(entries.values()))
    return 0


def sources(name: str) -> list[str]:
    """Return the sources of everything that a name stands for; objectives and methods are two namespaces.

    Raises:
        ConfigError: neither knows the name.
    """
    things = [registry(kind) for kind in KINDS]
    found = [description(thing.get(name))["source"] for thing in things if name in thing]
    if not found:
        known = sorted({known for thing in things for known in thing.names()})
        hint = suggest(name, known) or ";"
        raise ConfigError(f"unknown objective or method '{name}'{hint} 'diffpref list' shows the {len(known)} names")
    return [source for source in found if source]
