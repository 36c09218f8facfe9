"""``diffpref reward agreement``: how often the scores of a store order its candidates alike."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffpref.cli._arguments import Parser
from diffpref.core.errors import DataError

if TYPE_CHECKING:
    from diffpref.ranking import Agreement

__all__ = ["lines", "main"]


def main(argv: Sequence[str]) -> int:
    """Compare the scores of every two candidates of a prompt, and print how often each two scorers agree."""
    parser = Parser(
        prog="diffpref reward agreement",
        description="Of every two candidates of a prompt: do two scores prefer the same one?",
    )
    parser.add_argument("store", metavar="STORE", help="folder of a store whose candidates are scored")
    parser.add_argument(
        "--scores", nargs="+", metavar="NAME", help="NAME or NAME@VERSION; not given: all that are there"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the matrix as PNG")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.read(argv)

    from diffpref.data import read_store, score_rows
    from diffpref.ranking import agreement

    rows = score_rows(read_store(arguments.store), arguments.scores)
    if len(rows) < 2:
        raise DataError(f"{arguments.store}: scores by {', '.join(rows) or 'nobody'}; agreement needs two scorers")
    found = agreement(rows)
    if arguments.plot:
        from diffpref.core.files import publish_file
        from diffpref.plotting import plot_agreement, save_png

        with publish_file(Path(arguments.plot)) as file:
            save_png(plot_agreement(found.names, found.shares()), file)
    print(json.dumps(found.to_json(), indent=1) if arguments.json else "\n".join(lines(found)))
    return 0


def lines(found: Agreement) -> list[str]:
    """Return a table: a line for every two scorers."""
    heads = ("scorers", "agree", "tau-b", "pairs", "ties", "unscored")
    rows = [
        (
            f"{pair.first}, {pair.second}",
            "none" if math.isnan(pair.share) else f"{100 * pair.share:.1f} %",
            "none" if math.isnan(pair.tau) else f"{pair.tau:+.3f}",
            f"{pair.concordant + pair.discordant:,}",
            f"{pair.first_ties + pair.second_ties + pair.both_ties:,}",
            f"{pair.unscored:,}",
        )
        for pair in found.pairs
    ]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    ]
