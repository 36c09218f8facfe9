"""``diffpref reward evaluate``: how far rewards agree with labelled pairs, and what their probabilities are worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffpref.cli._arguments import Parser
from diffpref.cli._reporting import is_main, progress_bar
from diffpref.core.errors import ConfigError

if TYPE_CHECKING:
    from diffpref.evaluation.reward_quality import Quality

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Score both sides of every pair, then print accuracy, calibration error, and both by group."""
    parser = Parser(
        prog="diffpref reward evaluate",
        description="Compare rewards with labelled pairs: accuracy with ties, expected calibration error of the"
        " pair's probability, and both for each group of records.",
    )
    parser.add_argument("--source", required=True, metavar="PATH", help="a store, or other preference data")
    parser.add_argument(
        "--rewards", nargs="+", required=True, metavar="REWARD", help="NAME, NAME=PATH, or {NAME: {OPTION: VALUE}}"
    )
    parser.add_argument("--score", help="a score of the data that decides who is better; not given: judgements")
    parser.add_argument("--aspect", default="overall", help="without --score: which judgements")
    parser.add_argument("--pairing", default="all_pairs", help="with --score: best_vs_worst, all_pairs or adjacent")
    parser.add_argument("--group", metavar="KEY", help="of records: a key of their meta, source, generator or prompt")
    parser.add_argument("--tie", type=float, default=0.0, help="a tie is predicted where |P - (1 - P)| is at most this")
    parser.add_argument("--ties_from", metavar="PATH", help="other labelled pairs on which the best --tie is chosen")
    parser.add_argument("--device", help="where networks run; not given: the accelerator, if there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.read(argv)
    if not 0 <= given.tie <= 1:
        raise ConfigError(f"--tie: must be between 0 and 1, got {given.tie}")
    from diffpref.data import open_records, pair_view, usable_records
    from diffpref.evaluation.reward_quality import best_tie, group_of, measure, score_pairs
    from diffpref.loops.judging import load_rewards, parse_reward
    from diffpref.loops.opening import pick_device

    loaded = load_rewards([parse_reward(word) for word in given.rewards], pick_device(given.device), pairs=True)
    texts = {reward.info.media == "text" for reward in loaded.values()} == {True}

    def labelled(source: str) -> tuple[Any, Any]:
        records = usable_records(open_records(source, texts=texts))
        how = {"aspect": given.aspect, "drop_ties": False}
        return records, pair_view(records, given.pairing, given.score, **how)

    records, pairs = labelled(given.source)
    others = labelled(given.ties_from) if given.ties_from else None
    group = (lambda record: group_of(record, given.group)) if given.group else None
    found = {}
    for name, reward in loaded.items():
        with progress_bar("pair") as tell:
            tie = best_tie(score_pairs(reward, *others)) if others else given.tie
            found[name] = measure(score_pairs(reward, records, pairs, group, tell), tie)
    if not is_main():
        return 0
    if given.json:
        print(json.dumps({name: quality.to_json() for name, quality in found.items()}, indent=1, ensure_ascii=False))
        return 0
    told = f", {next(iter(found.values())).ties} of them ties"
    print(f"{given.source}: {len(pairs):,} labelled pairs{told}")
    print("\n".join(_table({name: {"": quality, **quality.by_group} for name, quality in found.items()})))
    for name, quality in found.items():
        if quality.unscored:
            print(f"{name}: {quality.unscored:,} more pairs are left out, because a score is not finite")
    return 0


def _table(found: Mapping[str, Mapping[str, Quality]]) -> list[str]:
    """Return a line for each reward and group."""
    rows = [("reward", "group", "pairs", "accuracy", "decided, 95 %", "calibration error")]
    for name, groups in found.items():
        for group, one in groups.items():
            error = "" if one.calibration_error is None else f"{one.calibration_error:.3f}"
            decided = f"{one.decided:.3f} ({one.low:.3f} .. {one.high:.3f})"
            rows.append((name if not group else "", group, str(one.pairs), f"{one.accuracy:.3f}", decided, error))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
