"""``diffpref cite``: BibTeX of what was used."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from diffpref.cli.registries import description, registry
from diffpref.core.errors import ConfigError, suggest

__all__ = ["bibtex", "main"]

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
        raise ConfigError(
            f"unknown objective or method '{name}'{suggest(name, known) or ';'} known: {', '.join(known)}"
        )
    return [source for source in found if source]


def bibtex(source: str) -> list[str]:
    """Turn a source, ``"Rafailov et al., arXiv:2305.18290, eq. 7; …"``, into BibTeX entries.

    Only what the source says is said: an arXiv number gives year and address; there is no title to be had.

    >>> print(bibtex("Rafailov et al., arXiv:2305.18290, eq. 7")[0])
    @misc{rafailov2023_2305.18290,
      author = {Rafailov and others},
      year = {2023},
      eprint = {2305.18290},
      archiveprefix = {arXiv},
      url = {https://arxiv.org/abs/2305.18290},
      note = {eq. 7}
    }
    """
    return [_entry(part.strip()) for part in source.split(";") if part.strip()]


def _entry(source: str) -> str:
    number = re.search(r"arXiv:(\d{2})(\d{2}\.\d{4,5})", source)
    if number is None:
        key = re.sub(r"\W+", "_", source.casefold(), flags=re.ASCII).strip("_")[:40]
        return f"@misc{{{key},\n  howpublished = {{{source}}}\n}}"
    author, _, rest = source.partition(", ")
    eprint = number[1] + number[2]
    note = ", ".join(part for part in rest.split(", ") if eprint not in part)
    surname = re.sub(r"\W", "", author.split()[0].casefold(), flags=re.ASCII)
    fields = {
        "author": author.replace(" et al.", " and others"),
        "year": f"20{number[1]}",
        "eprint": eprint,
        "archiveprefix": "arXiv",
        "url": f"https://arxiv.org/abs/{eprint}",
        **({"note": note} if note else {}),
    }
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{surname}20{number[1]}_{eprint},\n{body}\n}}"
