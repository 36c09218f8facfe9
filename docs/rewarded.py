"""Write the table of rewards in ``docs/rewards.md``: what each is, what it reads, whose weights, which options.

    python docs/rewarded.py

Everything in it is read from ``rewards/``: the first sentence of a module, its ``PUBLISHED``, its factory's signature.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path

from diffpref import rewards

__all__ = ["PAGE", "page", "table"]

PAGE = Path(__file__).resolve().parent / "rewards.md"
START, END = "<!-- rewards -->\n", "<!-- /rewards -->"
COMMON = ("device", "precision", "micro_batch", "allow_pickle")
"""Options that are the same everywhere: where the network runs, its number format, items at once, pickled weights."""
INSIDE = "as what is inside"


def media_of(name: str) -> str:
    """Return the kinds of items that a reward's module says it scores; pictures where it says nothing."""
    source = inspect.getsource(importlib.import_module(f"diffpref.rewards.{name}"))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("RewardInfo"):
            told = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg in ("media", "also")}
            try:
                kinds = [ast.literal_eval(told["media"]) if "media" in told else "image"]
                return ", ".join([*kinds, *(ast.literal_eval(told["also"]) if "also" in told else ())])
            except ValueError:
                return INSIDE
    return "image"


def table() -> str:
    """Return the table, a row a reward."""
    lines = [
        "| reward | what it is | scores | weights | licence of the weights | options |",
        "|---|---|---|---|---|---|",
    ]
    for name in rewards.names():
        module = importlib.import_module(f"diffpref.rewards.{name}")
        published = getattr(module, "PUBLISHED", None)
        weights = f"{published.repository}: `{'`, `'.join(published.files)}`" if published else ""
        what = " ".join((module.__doc__ or "").split("\n\n")[0].split())
        options = [
            f"`{option}`"
            for option, parameter in inspect.signature(rewards.registry.get(name)).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and option not in COMMON
        ]
        cells = [f"`{name}`", what, media_of(name), weights, published.licence if published else "", ", ".join(options)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("``", "`") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """Return the page with the table as it is now."""
    head, rest = text.split(START)
    return f"{head}{START}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name}: {PAGE.stat().st_size:,} bytes\n")
