"""``diffpref reward calibrate``: what gaps of a score are worth as probabilities, measured on labelled pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from diffpref.cli._arguments import Parser

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Measure, write the file, and say what changed."""
    parser = Parser(
        prog="diffpref reward calibrate",
        description="Fit P(a is better than b) = sigmoid(s * (score of a - score of b)) to labelled pairs of a store."
        " The file is an option of rewards (calibration=FILE) and of recipes (data.calibration: FILE).",
    )
    parser.add_argument("store", metavar="STORE", help="folder of a store whose candidates are scored")
    parser.add_argument("--reward", required=True, metavar="NAME", help="the score to calibrate, NAME or NAME@VERSION")
    parser.add_argument(
        "--labels",
        default="judgements",
        metavar="judgements|SCORE",
        help="what tells the truth: the records' judgements (default), or another score, which orders every two"
        " candidates of a prompt",
    )
    parser.add_argument("--aspect", default="overall", help="of the judgements (default: overall)")
    parser.add_argument("--output", required=True, metavar="FILE", help="the calibration, a small JSON file")
    parser.add_argument(
        "--rule",
        choices=("labels", "range"),
        default="labels",
        help="labels: the scale that makes them likeliest; range: one over the range of the scores, as SmPO does",
    )
    parser.add_argument(
        "--ties",
        choices=("half", "davidson"),
        default="half",
        help="half: half a win of either; davidson: an outcome of their own, so that many ties do not shrink the scale",
    )
    parser.add_argument("--pair_scale", type=float, metavar="S", help="the scale so far, for comparison; not given: 1")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.read(argv)
    if arguments.pair_scale is not None and not arguments.pair_scale > 0:
        parser.error(f"--pair_scale: must be > 0, got {arguments.pair_scale}")

    from diffpref.data import labelled_pairs, read_store
    from diffpref.ranking import calibrate

    pairs = labelled_pairs(read_store(arguments.store), arguments.reward, arguments.labels, aspect=arguments.aspect)
    found = calibrate(
        arguments.reward.partition("@")[0],
        pairs.version,
        pairs.scores,
        pairs.labels,
        pairs.groups,
        weights=pairs.weights,
        scale_before=arguments.pair_scale,
        rule=arguments.rule,
        ties=arguments.ties,
    )
    found.save(Path(arguments.output))
    if arguments.json:
        print(
            json.dumps({"calibration": arguments.output, **asdict(found), "left_out": dict(pairs.left_out)}, indent=1)
        )
        return 0
    on = "" if arguments.rule == "range" else ", on pairs that the fit had not seen"
    left = "".join(f"; left out: {count} {reason}" for reason, count in pairs.left_out.items())
    ties = f", weight of ties {found.tie_weight:.3g}" if found.tie_weight else ""
    print(f"{found.score}@{found.version}: {found.pairs:,} labelled pairs, {found.ties:,} of them ties{left}")
    print(f"scale              {found.scale_before:.4g} -> {found.scale:.4g}{ties}")
    print(f"calibration error  {100 * found.error_before:.2f} % -> {100 * found.error_after:.2f} %{on}")
    print(f"cross-entropy      {found.loss_before:.4f} -> {found.loss_after:.4f} nats")
    print(f"written to {arguments.output}")
    return 0
