"""``diffpref score``: add the scores of rewards to a store, or what they say of parts of its clips."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from diffpref.cli._arguments import Parser
from diffpref.cli._reporting import is_main, progress_bar, score_lines, scores_json
from diffpref.loops.judging import load_rewards, parse_reward
from diffpref.loops.opening import pick_device

if TYPE_CHECKING:
    from diffpref.config import Named
    from diffpref.data import Store

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Write a copy of a store with scores, or judgements of parts, added, then say what they are."""
    parser = Parser(
        prog="diffpref score",
        description="Score every candidate of a store; scores of the same name and version are kept. With --segments,"
        " compare its clips part by part instead. Several processes share the work.",
    )
    parser.add_argument("store", metavar="STORE", help="folder of a store")
    parser.add_argument(
        "--rewards", nargs="+", required=True, metavar="REWARD", help="NAME, NAME=PATH, or {NAME: {OPTION: VALUE}}"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the scored store")
    parser.add_argument(
        "--segments",
        type=float,
        metavar="SECONDS",
        help="compare the clips of each record in parts of so many seconds, as DenseDPO learns from: judgements, no"
        " scores; judges of two clips will do too",
    )
    parser.add_argument(
        "--tie",
        type=float,
        metavar="GAP",
        help="with --segments: the largest difference that is a tie, in units of the reward, of judges from 1/2; not"
        " given: 0",
    )
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
    if arguments.tie is not None and arguments.segments is None:
        parser.error("--tie: is for --segments")
    named = [parse_reward(word) for word in arguments.rewards]

    from diffpref.data import read_store
    from diffpref.generation import score_store, summarise_scores

    start = time.perf_counter()
    store = read_store(arguments.store)
    if arguments.segments is not None:
        return _judge_parts(arguments, named, store, start)
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


def _judge_parts(arguments: Any, named: Sequence[Named], store: Store, start: float) -> int:
    """Write a copy of a store with judgements of parts, then say what they are."""
    from diffpref.generation import PartSettings, judge_parts_of_store, summarise_parts

    settings = PartSettings(arguments.segments, arguments.tie or 0.0)
    judges = load_rewards(named, pick_device(arguments.device), arguments.score_cache, pairs=True)
    with progress_bar("record") as tell:
        judged = judge_parts_of_store(
            store, judges, arguments.output, settings, tell, max_unusable=arguments.max_unusable
        )
    if not is_main():
        return 0
    summaries, seconds = summarise_parts(judged), time.perf_counter() - start
    if arguments.json:
        found = {
            "store": str(judged.folder),
            "records": len(judged),
            "parts": [asdict(one) for one in summaries],
            "seconds": seconds,
        }
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    print(f"{judged.folder}: {len(judged):,} records, {seconds:.1f} seconds")
    if not summaries:
        print("  no part is judged: parts are compared between the clips of a record, and none has two")
    for one in summaries:
        print(f"  {one.annotator}  first better in {one.first:,} parts, second in {one.second:,}, ties {one.ties:,}")
    return 0
