"""``diffpref reward VERB …``: reward models of one's own, and what scores are worth.

Each verb is a module of this package.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from diffpref.core.errors import ConfigError, suggest

__all__ = ["VERBS", "main"]

VERBS = {
    "agreement": "how often the scores of a store order its candidates alike",
    "calibrate": "what gaps of a score are worth as probabilities, on labelled pairs",
    "train": "a reward model from preference data, by a recipe",
    "evaluate": "how far rewards agree with labelled pairs, and what their probabilities are worth",
}
"""Verb -> what it does. Kept here, so that the help imports nothing."""


def main(argv: Sequence[str]) -> int:
    """Run a verb.

    Raises:
        ConfigError: an unknown verb.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        width = max(map(len, VERBS))
        lines = "\n".join(f"  {verb:{width}}  {what}" for verb, what in VERBS.items())
        what = "Train reward models; compare and calibrate scores."
        told = f"usage: diffpref reward VERB ...\n\n{what}\n\nverbs:\n{lines}\n\n"
        print(told + "'diffpref reward VERB --help' tells more.", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] not in VERBS:
        raise ConfigError(f"unknown verb '{argv[0]}'{suggest(argv[0], VERBS) or ';'} known: {', '.join(VERBS)}")
    return int(importlib.import_module(f"diffpref.cli.reward.{argv[0]}").main(argv[1:]) or 0)
