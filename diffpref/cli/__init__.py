"""The command line: ``diffpref COMMAND …``. Each command is a module of this package, imported only when it runs."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from diffpref.core.errors import DiffprefError, suggest

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "demo": "the whole loop on the bundled tiny SDXL: generate, score, train, evaluate, report",
    "train": "align a model to preferences, from a recipe",
    "generate": "prompts to candidates to scores to preference data",
    "loop": "rounds of drawing, judging and training, such as iterative DPO",
    "score": "score images with a reward",
    "caption": "captions of single candidates and paraphrases of them, for methods that read them",
    "reward": "reward models: train one's own, evaluate any",
    "index": "write checksums and counts beside tar shards, tables or pictures, so that damage is noticed",
    "cache": "encode images and captions once, for training",
    "evaluate": "compare an aligned model with its base",
    "explain": "do one logged update again and show what it was made of",
    "export": "the result of a run for ComfyUI, for kohya's scripts, or as a whole pipeline",
    "list": "objectives, weightings, methods, families, rewards, adapters, recipes",
    "validate": "check a recipe fully, without running it",
    "cite": "BibTeX of objectives and methods",
}
"""Command -> what it does. Kept here, so that the help imports nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the words after ``diffpref``; None takes the process's own.

    Returns:
        The exit code: 0; 2 for a mistake of the caller, told in a line each on stderr; 130 when stopped by Ctrl-C, 143
        by SIGTERM.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # where it is installed it complains at every start
    words = [*(sys.argv[1:] if argv is None else argv)]  # "list" is a submodule here once it has run
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    name, rest = words[0], words[1:]
    if name == "--version":
        from diffpref import __version__

        print(f"diffpref {__version__}")
        return 0
    try:
        if name not in COMMANDS:
            raise DiffprefError(
                f"unknown command '{name}'{suggest(name, COMMANDS) or ';'} known: {', '.join(COMMANDS)}"
            )
        return importlib.import_module(f"diffpref.cli.{name}").main(rest) or 0
    except DiffprefError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"diffpref: {line}\n")  # at once: the lines of several processes must not mix
        return error.exit_code
    except KeyboardInterrupt:
        print("diffpref: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has gone; Python would complain once more while it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    return (
        "usage: diffpref COMMAND ...\n\nAlign generative models to preferences.\n\n"
        f"commands:\n{commands}\n\n"
        "'diffpref COMMAND --help' tells more; 'diffpref --version' prints the version."
    )
