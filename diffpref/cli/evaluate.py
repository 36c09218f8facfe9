"""``diffpref evaluate``: compare models with the base that they started from, or with each other."""

from __future__ import annotations

import json
import shlex
import sys
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpref.cli._arguments import Parser
from diffpref.cli._evaluation import base_model, denoiser_part, make_plan, output_folder, read_prompts, sampler_settings
from diffpref.cli._reporting import tell_progress
from diffpref.core.errors import ConfigError
from diffpref.loops.judging import judges_and_facts, parse_reward
from diffpref.loops.opening import load_model, make_sampler, pick_device

if TYPE_CHECKING:
    from diffpref.evaluation.contenders import Contender
    from diffpref.evaluation.report import Pictures
    from diffpref.evaluation.standings import Standings

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Draw with all contenders, judge, and write the report; or make the report of an evaluation anew."""
    given = _parser().read(argv)
    command = shlex.join(["diffpref", "evaluate", *argv])
    if given.again:
        return _again(given, command)
    for name, value in (("RUN", given.contenders), ("--prompts", given.prompts), ("--rewards", given.rewards)):
        if not value:
            raise ConfigError(f"{name}: must be given; 'diffpref evaluate --help' tells more")
    named = [parse_reward(word) for word in given.rewards]
    tell_progress()

    from diffpref.evaluation.contenders import BASE_CONTENDER, parse_contenders
    from diffpref.evaluation.embedding import embedder_of
    from diffpref.evaluation.evaluating import base_of, evaluate
    from diffpref.evaluation.folder import EvaluationFolder
    from diffpref.evaluation.measures import CLIP_PROBES, MOTION_PROBES, PROBES
    from diffpref.evaluation.measuring import NOUNS, Measures, Studio
    from diffpref.evaluation.placing import ContentDigests, check_contenders
    from diffpref.models.attention import set_attention

    start = time.perf_counter()
    contenders = parse_contenders(given.contenders)
    if given.against not in (known := [one.name for one in (BASE_CONTENDER, *contenders)]):
        raise ConfigError(f"--against: nobody is called '{given.against}'; known: {', '.join(known)}")
    recipe = base_of(contenders)
    model = base_model(given.base, given.family, recipe)
    check_contenders(contenders, model.path, model.revision, part=denoiser_part(model))
    output = output_folder(given.output, contenders)
    found = read_prompts(given.prompts)
    device = pick_device(given.device)
    settings = sampler_settings(given, recipe, model)
    digest = ContentDigests(output / "digests.json").of_path(model.path, model.revision)
    folder = EvaluationFolder(output, make_plan(given, found, model, settings, digest, device))
    judges, facts = judges_and_facts(named, device)
    still = folder.plan.kind == "image"
    probes: Any = PROBES if still else {**CLIP_PROBES, **(MOTION_PROBES if facts else {})}
    studio = Studio(
        folder,
        lambda: load_model(model, device),
        lambda family: make_sampler(family, settings, model.precision),
        given.batch_size,
        lambda network: set_attention(network, model.attention),
    )
    standings = evaluate(
        contenders,
        studio,
        Measures(judges, facts, probes, embedder_of(judges) if still else None),
        digest,
        against=given.against,
        ties=given.ties,
        images=given.images,
        tell=_silent if given.json else partial(_tell_chunk, NOUNS[folder.plan.kind]),
        setting={"base model": model.path},
    )
    by_name = {one.name: one for one in (BASE_CONTENDER, *contenders)}
    shown: dict[str, set[int]] = defaultdict(set)

    def pictures(name: str, positions: Sequence[int]) -> list[Any]:
        shown[name].update(positions)
        return studio.show(by_name[name], list(positions))

    report = _write(
        output,
        standings,
        None if given.images == "none" else pictures,
        command,
        notes=found.warnings,
        runs=[one for one in contenders if one.kind == "run"],
        seconds={"drawing and judging": time.perf_counter() - start},
    )
    if given.images != "keep":
        for name in by_name:
            folder.drop(name, set(range(len(folder.plan))) - shown[name])
    return _tell(given, standings, report)


def _silent(name: str, done: int, total: int) -> None:
    pass


def _tell_chunk(noun: str, name: str, done: int, total: int) -> None:
    print(f"{name}: {done:,} of {total:,} {noun}", file=sys.stderr, flush=True)


def _write(
    output: Path,
    standings: Standings,
    pictures: Pictures | None,
    command: str,
    *,
    notes: Sequence[str] = (),
    runs: Sequence[Contender] = (),
    seconds: dict[str, float],
) -> Path:
    from diffpref.evaluation.provenance import Provenance
    from diffpref.evaluation.report import write_report
    from diffpref.training.log import read_metrics

    run = Path(runs[0].path) if len(runs) == 1 else None
    return write_report(
        output,
        standings,
        pictures,
        title=f"{', '.join(standings.others)} against {standings.against}",
        metrics=read_metrics(run / "metrics.jsonl") if run else (),
        provenance=Provenance(
            command=command,
            config=(run / "config.yaml").read_text(encoding="utf-8") if run else "",
            seconds=seconds,
            versions=standings.setting.get("versions", {}),
        ),
        notes=notes,
    )


def _tell(given: Namespace, standings: Standings, report: Path) -> int:
    from diffpref.evaluation.independence import independence_warnings
    from diffpref.evaluation.summary import print_standings

    results = report.parent / "results.json"
    if given.json:
        values = json.loads(results.read_text(encoding="utf-8"))
        for name in ("prompts", "seeds", "categories"):
            del values[name]
        for column in values["contenders"].values():
            for name in ("scores", "facts", "probes"):
                del column[name]
        print(json.dumps({**values, "report": str(report), "results": str(results)}, indent=1, ensure_ascii=False))
        return 0
    print_standings(standings)
    for line in independence_warnings(standings):
        print(f"note: {line}")
    print(f"report: {report}")
    return 0


def _again(given: Namespace, command: str) -> int:
    """Make the report of a finished evaluation anew from its numbers; no model and no judge is loaded."""
    from dataclasses import replace

    from diffpref.core.errors import DataError
    from diffpref.core.files import read_json
    from diffpref.evaluation.folder import read_kept
    from diffpref.evaluation.standings import Standings

    if given.contenders or given.prompts or given.rewards:
        raise ConfigError("--again: takes an evaluation as it is; leave out contenders, prompts and rewards")
    output = Path(given.again)
    standings = replace(Standings.load(output / "results.json"), against=given.against, ties=given.ties)
    notes = [str(note) for note in read_json(output / "results.json").get("notes", ())]

    def pictures(name: str, positions: Sequence[int]) -> list[Any]:
        return [read_kept(output, name, position) for position in positions]

    try:
        report = _write(output, standings, pictures, command, notes=notes, seconds={})
    except DataError as error:
        print(f"without pictures: {error}", file=sys.stderr)
        report = _write(output, standings, None, command, notes=notes, seconds={})
    return _tell(given, standings, report)


def _parser() -> Parser:
    parser = Parser(
        prog="diffpref evaluate",
        description="Draw the same prompts and seeds with a base and with models made from it, and let rewards judge.",
    )
    parser.add_argument(
        "contenders",
        nargs="*",
        metavar="RUN",
        help="a finished run (RUN:ema for its average), a LoRA, a denoiser's or a whole model's folder, a hub id;"
        " NAME=... names it",
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        metavar="SET",
        help="NAME=PATH with the published files of a set such as partiprompts, a text file, a .jsonl file with"
        " 'prompt', shapes:SPLIT[:COUNT | :START-STOP], shapes_moving:SPLIT[:COUNT | :START-STOP], or several prompts",
    )
    parser.add_argument(
        "--rewards",
        nargs="+",
        metavar="REWARD",
        help="NAME, NAME=PATH, or {NAME: {OPTION: VALUE}}; oracle reads the facts of the shapes world",
    )
    parser.add_argument("--against", default="base", metavar="NAME", help="who the others are compared with")
    parser.add_argument("--ties", choices=("half", "loss"), default="half", help="what an exactly equal score counts")
    parser.add_argument(
        "--images",
        choices=("keep", "sample", "none"),
        default="keep",
        help="which pictures (PNG) and clips (WebP) stay: all, those that the report shows, or none",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="pictures of each prompt")
    parser.add_argument("--seed", type=int, default=0, help="of the evaluation")
    parser.add_argument("--output", metavar="DIR", help="folder of the evaluation; not given: RUN/evaluation")
    parser.add_argument("--again", metavar="DIR", help="make the report of a finished evaluation anew, in seconds")
    parser.add_argument("--base", metavar="MODEL", help="what all started from; not given: the first run's model")
    parser.add_argument("--family", help="of --base, such as sdxl; not given: the first run's")
    parser.add_argument("--num_inference_steps", type=int, help="not given: the recipe's validation")
    parser.add_argument("--guidance_scale", type=float, help="not given: the recipe's validation")
    parser.add_argument("--resolution", type=int, help="pixels; not given: the recipe's, or the model's own")
    parser.add_argument("--num_frames", type=int, help="of clips; not given: the recipe's, or the model's own")
    parser.add_argument(
        "--fps", type=float, help="frames a second of clips; not given: the recipe's, or the model's own"
    )
    parser.add_argument("--solver", choices=("ddim", "dpmpp_2m"), default="ddim")
    parser.add_argument("--batch_size", type=int, default=16, help="pictures drawn at once")
    parser.add_argument("--device", help="where networks run; not given: the accelerator, if there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
