"""BibTeX from the one line that says where a thing comes from."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from diffpref.core.assets import ASSETS

__all__ = ["bibtex"]


def bibtex(source: str) -> list[str]:
    """Turn a source, ``"Rafailov et al., arXiv:2305.18290, eq. 7; …"``, into BibTeX entries.

    An arXiv number gives year and address, and `diffpref/assets/bibliography.yaml` the title and the venue; of a source
    without a number only what it says is said.

    >>> print(bibtex("Rafailov et al., arXiv:2305.18290, eq. 7")[0])
    @misc{rafailov2023_2305.18290,
      title = {Direct Preference Optimization: Your Language Model is Secretly a Reward Model},
      author = {Rafailov and others},
      year = {2023},
      eprint = {2305.18290},
      archiveprefix = {arXiv},
      url = {https://arxiv.org/abs/2305.18290},
      note = {NeurIPS 2023, eq. 7}
    }
    """
    return [_entry(part.strip()) for part in source.split(";") if part.strip()]


@cache
def _bibliography() -> dict[str, dict[str, str]]:
    import yaml

    found: dict[str, Any] = yaml.safe_load((ASSETS / "bibliography.yaml").read_text(encoding="utf-8"))
    return found


def _entry(source: str) -> str:
    number = re.search(r"arXiv:(\d{2})(\d{2}\.\d{4,5})", source)
    if number is None:
        key = re.sub(r"\W+", "_", source.casefold(), flags=re.ASCII).strip("_")[:40]
        return f"@misc{{{key},\n  howpublished = {{{source}}}\n}}"
    author, _, rest = source.partition(", ")
    eprint = number[1] + number[2]
    paper = _bibliography().get(eprint, {})
    said = [part for part in rest.split(", ") if eprint not in part]
    note = ", ".join([*([paper["venue"]] if "venue" in paper else []), *said])
    surname = re.sub(r"\W", "", author.split()[0].casefold(), flags=re.ASCII)
    fields = {
        **({"title": paper["title"]} if paper else {}),
        "author": author.replace(" et al.", " and others"),
        "year": f"20{number[1]}",
        "eprint": eprint,
        "archiveprefix": "arXiv",
        "url": f"https://arxiv.org/abs/{eprint}",
        **({"note": note} if note else {}),
    }
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{surname}20{number[1]}_{eprint},\n{body}\n}}"
