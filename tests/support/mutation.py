"""Break every objective in every small way, and see whether its tests notice.

    python tests/support/mutation.py                 # all objectives, two processes; fails below 90 %
    python tests/support/mutation.py dpo simpo       # some
    python tests/support/mutation.py --markdown      # also write docs/mutation.md

Each sign flipped, factor dropped, chosen and rejected swapped, detach added or taken away is one mutant. It is killed
when any check of `objective_checks` fails for an objective that runs the changed function. Mutants that cannot change a
number are listed with the reason in `mutation_equivalents.yaml`, one by one; a listed one that is killed after all, or
that no longer exists, is an error.
"""

from __future__ import annotations

import argparse
import inspect
import multiprocessing
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import FunctionType

import torch
import yaml
from mutants import Mutant, mutants_of, swapped_in
from objective_checks import CHECKS

from diffpref.core.errors import DiffprefError
from diffpref.objectives import registry

HERE = Path(__file__).resolve().parent
EQUIVALENTS = HERE / "mutation_equivalents.yaml"
PAGE = HERE.parents[1] / "docs" / "mutation.md"
GOAL = 0.9
WRONG = (
    AssertionError,
    DiffprefError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def functions() -> dict[FunctionType, list[str]]:
    """Return function -> the objectives that run it: its own, or for a helper those whose source names it."""
    own = {name: registry.get(name).spec.function for name in registry.names()}
    found: dict[FunctionType, list[str]] = defaultdict(list)
    for name, function in own.items():
        assert isinstance(function, FunctionType)
        found[function].append(name)
        todo, helpers = [function], {function}
        while todo:
            for word in todo.pop().__code__.co_names:
                helper = function.__globals__.get(word)
                inside = isinstance(helper, FunctionType) and helper.__module__.startswith("diffpref.objectives.")
                if inside and helper not in helpers and not hasattr(helper, "spec"):
                    helpers.add(helper)
                    todo.append(helper)
                    found[helper].append(name)
    infrastructure = {"base", "checks", "compose", "metrics", "options"}
    return {f: names for f, names in found.items() if f.__module__.rpartition(".")[2] not in infrastructure}


def survives(function: FunctionType, names: list[str], mutant: Mutant) -> bool:
    """Whether no check notices."""
    with swapped_in(function, mutant):
        for name in names:
            spec = registry.get(name).spec
            for check in CHECKS.values():
                try:
                    check(spec)
                except WRONG:
                    return False
    return True


def examine(number: int) -> list[tuple[str, str, bool]]:
    """Return (function, change, survived) of every mutant of a function."""
    torch.set_num_threads(1)
    function, names = list(functions().items())[number]
    return [(m.function, m.change, survives(function, names, m)) for m in mutants_of(function)]


def main(argv: list[str] | None = None) -> int:
    """Run and report; 1 below the goal, or when the list of equivalents is wrong."""
    parser = argparse.ArgumentParser(description=inspect.cleandoc(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="objectives; all where none is named")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--markdown", action="store_true", help="write docs/mutation.md")
    arguments = parser.parse_args(argv)
    wanted = set(arguments.names) or set(registry.names())
    numbers = [i for i, names in enumerate(functions().values()) if wanted & set(names)]
    started = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(min(arguments.processes, len(numbers))) as pool:
        results = [row for rows in pool.imap(examine, numbers) for row in rows]
    excused = {(e["function"], e["change"]): e["why"] for e in yaml.safe_load(EQUIVALENTS.read_text()) or []}
    survivors = [(f, c) for f, c, survived in results if survived]
    open_ones = [row for row in survivors if row not in excused]
    examined = {f for f, _, _ in results}
    wrong = [key for key in excused if key[0] in examined and key not in survivors]
    counted = len(results) - sum(row in excused for row in survivors)
    killed = counted - len(open_ones)
    share = killed / max(counted, 1)
    for row in open_ones:
        print(f"survived: {row[0]}: {row[1]}")
    for row in wrong:
        print(f"listed as equivalent, but killed or gone: {row[0]}: {row[1]}")
    seconds = time.perf_counter() - started
    print(
        f"{killed} of {counted} mutants killed ({share:.1%}); {len(results) - counted} more are equivalent;"
        f" {len(examined)} functions; {seconds:.0f} s"
    )
    if arguments.markdown:
        PAGE.write_text(page(results, excused, killed, counted))
    return int(share < GOAL or bool(wrong))


def page(results: list[tuple[str, str, bool]], excused: dict[tuple[str, str], str], killed: int, counted: int) -> str:
    """Return the report as a page of the documentation."""
    table: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for function, change, survived in results:
        row = table[function]
        row[0] += 1
        row[1] += not survived
        row[2] += survived and (function, change) in excused
    lines = [f"| `{f}` | {n} | {k} | {e} | {n - k - e} |" for f, (n, k, e) in sorted(table.items())]
    left = [f"- `{f}`: `{c}`" for f, c, survived in results if survived and (f, c) not in excused]
    reasons = [f"- `{f}`: `{c}`: {why}" for (f, c), why in excused.items()]
    return "\n".join(
        [
            "# Mutation check",
            "",
            "What `python tests/support/mutation.py --markdown` found: every sign flipped, factor dropped, chosen and"
            " rejected swapped, detach added or removed, one at a time, in every objective.",
            "",
            f"**{killed} of {counted} mutants are killed ({killed / max(counted, 1):.1%})**;"
            f" {len(results) - counted} more cannot change a number and are listed below.",
            "",
            "| function | mutants | killed | equivalent | survived |",
            "|---|---|---|---|---|",
            *lines,
            "",
            "## Survivors",
            "",
            *(left or ["None."]),
            "",
            "## Equivalents",
            "",
            *(reasons or ["None."]),
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
