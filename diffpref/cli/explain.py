"""``diffpref explain``: do one update of a run again and show what it was made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from diffpref.cli._arguments import Parser

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Replay, look, and write ``explain.html``, ``explain.png`` and ``explain.json``."""
    arguments = _parser().read(argv)
    from diffpref.cli._reporting import tell_progress
    from diffpref.evaluation.explained import explanation_json, write_explanation
    from diffpref.loops.opening import quiet_libraries
    from diffpref.training.explain import explain_step

    quiet_libraries()
    if not arguments.json:
        tell_progress()
    run = Path(arguments.run)
    view = explain_step(run, arguments.step)
    folder = Path(arguments.output) if arguments.output else run / "explained" / f"step-{view.step:06d}"
    paths = write_explanation(folder, view)
    if arguments.json:
        values = explanation_json(view) | {ending: str(path) for ending, path in paths.items()}
        print(json.dumps(values, indent=1, ensure_ascii=False))
        return 0
    print(view.sentence)
    print(f"page: {paths['html']}\npictures: {paths['png']}\nnumbers: {paths['json']}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="diffpref explain",
        description="Do one logged update of a run again, to the bit, from the newest checkpoint before it, and show"
        " for each record the samples, their noised latents, what both models take for clean, and what it counted.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("--step", type=int, required=True, metavar="N", help="as in metrics.jsonl, from 1")
    parser.add_argument("--output", metavar="DIR", help="where to write; not given: RUN/explained/step-N")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
