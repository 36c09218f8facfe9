"""``diffpref score``: add the scores of rewards to a store."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from diffpref.cli._arguments import Parser
from diffpref.cli._reporting import is_main, progress_bar, score_lines, scores_json
from diffpref.loops.judging import load_rewards, parse_reward
from diffpref.loops.opening import pick_device

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Write a copy of a store with scores added, then say what they are."""
    parser = Parser(
        prog="diffpref score",
        description="Score every candidate of a store; scores of the same name and version are kept. Several processes"
        " share the work.",
    )
    parser.add_argument("store", metavar="STORE", help="folder of a store")
    parser.add_argument(
        "--rewards", nargs="+", required=True, metavar="REWARD", help="NAME, NAME=PATH, or {NAME: {OPTION: VALUE}}"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the scored store")
    parser.add_argument(
        "--max_unusable",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="share of a reward's scores that may be NaN, infinite or missing before the work stops",
    )
    parser.add_argument(
        "--score_cache",
        metavar="DIR",
        help="folder that keeps scores by content, so that no item is shown twice to one reward; not given: none",
    )
    parser.add_argument("--device", help="where networks run; not given: the accelerator, if there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.read(argv)
    if not 0 <= arguments.max_unusable <= 1:
        parser.error(f"--max_unusable: must be between 0 and 1, got {arguments.max_unusable}")
    named = [parse_reward(word) for word in arguments.rewards]

    from diffpref.data import read_store
    from diffpref.generation import score_store, summarise_scores

    start = time.perf_counter()
    store = read_store(arguments.store)
    scorers = load_rewards(named, pick_device(arguments.device), arguments.score_cache)
    with progress_bar("record") as tell:
        scored = score_store(store, scorers, arguments.output, tell, max_unusable=arguments.max_unusable)
    if not is_main():
        return 0
    summaries, seconds = summarise_scores(scored), time.perf_counter() - start
    if arguments.json:
        found = {
            "store": str(scored.folder),
            "records": len(scored),
            "scores": scores_json(summaries),
            "seconds": seconds,
        }
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    print(f"{scored.folder}: {len(scored):,} records, {seconds:.1f} seconds")
    print("\n".join(score_lines(summaries)))
    return 0
