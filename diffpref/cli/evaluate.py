"""``diffpref evaluate``: compare models with the base that they started from, or with each other."""

from __future__ import annotations

import json
import shlex
import sys
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpref.cli._arguments import Parser
from diffpref.cli._reporting import tell_progress
from diffpref.core.errors import ConfigError
from diffpref.loops.judging import judges_and_facts, parse_reward
from diffpref.loops.opening import load_model, make_sampler, pick_device

if TYPE_CHECKING:
    from diffpref.config import Model, Recipe
    from diffpref.evaluation.contenders import Contender
    from diffpref.evaluation.plan import EvaluationPlan
    from diffpref.evaluation.standings import Standings
    from diffpref.sampling import SamplerSettings

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Draw with all contenders, judge, and write the report; or make the report of an evaluation anew."""
    arguments = _parser().read(argv)
    tell_progress()
    if arguments.again:
        return _again(arguments, argv)
    for name in ("contenders", "prompts", "rewards"):
        if not getattr(arguments, name):
            raise ConfigError(f"{'RUN' if name == 'contenders' else f'--{name}'} must be given; "
                              "'diffpref evaluate --help' tells more")  # fmt: skip
    named = [parse_reward(word) for word in arguments.rewards]

    from diffpref.evaluation.contenders import parse_contenders
    from diffpref.evaluation.evaluating import base_of, evaluate
    from diffpref.evaluation.folder import EvaluationFolder
    from diffpref.evaluation.measuring import Measures, Studio
    from diffpref.evaluation.placing import ContentDigests

    start = time.perf_counter()
    contenders = parse_contenders(arguments.contenders)
    recipe = base_of(contenders)
    model = _base_model(arguments, recipe)
    output = _output(arguments, contenders)
    device = pick_device(arguments.device)
    settings = _settings(arguments, recipe, model)
    digest = ContentDigests(output / "digests.json").of_path(model.path, model.revision)
    plan = _plan(arguments, model, settings, digest, device)
    judges, facts = judges_and_facts(named, device)
    folder = EvaluationFolder(output, plan)
    studio = Studio(
        folder,
        lambda: load_model(model, device),
        lambda family: make_sampler(family, settings, model.precision),
        arguments.batch_size,
    )
    standings = evaluate(
        contenders,
        studio,
        Measures(judges, facts),
        digest,
        against=arguments.against,
        ties=arguments.ties,
        images=arguments.images,
        tell=_teller(quiet=arguments.json),
    )
    by_name = {one.name: one for one in [_base(), *contenders]}
    shown: dict[str, set[int]] = defaultdict(set)

    def pictures(name: str, positions: Sequence[int]) -> list[Any]:
        shown[name].update(positions)
        return studio.show(by_name[name], list(positions))

    seconds = {"drawing and judging": time.perf_counter() - start}
    runs = [one for one in contenders if one.kind == "run"]
    report = _write(arguments, argv, standings, None if arguments.images == "none" else pictures, output, runs, seconds)
    if arguments.images != "keep":
        for name in by_name:
            folder.drop(name, set(range(len(plan))) - shown[name])
    return _tell(arguments, standings, report)


def _base() -> Contender:
    from diffpref.evaluation.contenders import BASE, Contender

    return Contender(BASE, "base")


def _base_model(arguments: Namespace, recipe: Recipe | None) -> Model:
    """Return the model that all start from: ``--base``, else that of the first run."""
    from diffpref.config import Model
    from diffpref.models import registry

    if arguments.base is None:
        if recipe is None:
            raise ConfigError("--base: must be given, with --family, where no contender is a run of diffpref")
        model = recipe.model
    else:
        told = recipe.model.model_dump() if recipe else {}
        family = arguments.family or told.get("family")
        if family is None:
            raise ConfigError(f"--family: must be given with --base; known: {', '.join(registry.names())}")
        model = Model.model_validate({**told, "path": arguments.base, "family": family})
    if registry.get(model.family).likelihood != "denoising":
        raise ConfigError(f"'{model.family}' draws no pictures; diffpref evaluate compares models that do")
    return model


def _settings(arguments: Namespace, recipe: Recipe | None, model: Model) -> SamplerSettings:
    from diffpref.config import Validation
    from diffpref.models import open_family
    from diffpref.sampling import SamplerSettings

    told = recipe.validation if recipe else Validation()
    resolution = arguments.resolution or (recipe.data.resolution if recipe else None)
    return SamplerSettings(
        num_inference_steps=arguments.num_inference_steps or told.num_inference_steps,
        guidance_scale=told.guidance_scale if arguments.guidance_scale is None else arguments.guidance_scale,
        solver=arguments.solver,
        resolution=resolution or open_family(model, "vae").native_resolution(),
        batch_size=arguments.batch_size,
    )


def _plan(arguments: Namespace, model: Model, settings: SamplerSettings, digest: str, device: str) -> EvaluationPlan:
    import hashlib
    from dataclasses import asdict

    from diffpref.core.files import sha256
    from diffpref.evaluation.plan import EvaluationPlan, evaluation_pairs
    from diffpref.generation import load_prompts

    source = arguments.prompts[0] if len(arguments.prompts) == 1 else arguments.prompts
    prompts = list(dict.fromkeys(load_prompts(source)))
    texts, seeds = evaluation_pairs(prompts, arguments.seeds, arguments.seed)
    file = isinstance(source, str) and Path(source).is_file()
    told = sha256(Path(source)) if file else hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    return EvaluationPlan(
        tuple(texts),
        tuple(seeds),
        base={"family": model.family, "weights": digest, "precision": model.precision, "variant": model.variant},
        sampler={**asdict(settings), "device": device.partition(":")[0]},
        prompt_set={"name": Path(source).name if file else source, "sha256": told, "count": len(prompts)},
        seed=arguments.seed,
    )


def _output(arguments: Namespace, contenders: Sequence[Contender]) -> Path:
    if arguments.output:
        return Path(arguments.output)
    if contenders[0].kind != "run":
        raise ConfigError("--output: must be given where the first contender is no run")
    return Path(contenders[0].path) / "evaluation"


def _teller(*, quiet: bool) -> Any:
    def tell(name: str, done: int, total: int) -> None:
        print(f"{name}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    return (lambda name, done, total: None) if quiet else tell


def _write(
    arguments: Namespace,
    argv: Sequence[str],
    standings: Standings,
    pictures: Any,
    output: Path,
    runs: Sequence[Contender],
    seconds: dict[str, float],
) -> Path:
    from diffpref.evaluation.provenance import Provenance
    from diffpref.evaluation.report import write_report
    from diffpref.training.log import read_metrics

    run = Path(runs[0].path) if len(runs) == 1 else None
    provenance = Provenance(
        command=shlex.join(["diffpref", "evaluate", *argv]),
        config=(run / "config.yaml").read_text(encoding="utf-8") if run else "",
        seconds=seconds,
    )
    return write_report(
        output,
        standings,
        pictures,
        title=f"{', '.join(standings.others)} against {standings.against}",
        metrics=read_metrics(run / "metrics.jsonl") if run else (),
        provenance=provenance,
    )


def _tell(arguments: Namespace, standings: Standings, report: Path) -> int:
    from diffpref.evaluation.independence import independence_warnings
    from diffpref.evaluation.summary import print_standings

    if arguments.json:
        values = json.loads((report.parent / "results.json").read_text(encoding="utf-8"))
        values = {key: value for key, value in values.items() if key not in ("prompts", "seeds", "categories")}
        for column in values["contenders"].values():
            for measures in ("scores", "facts", "probes"):
                del column[measures]
        values |= {"report": str(report), "results": str(report.parent / "results.json")}
        print(json.dumps(values, indent=1, ensure_ascii=False))
        return 0
    print_standings(standings)
    for line in independence_warnings(standings):
        print(f"note: {line}")
    print(f"report: {report}")
    return 0


def _again(arguments: Namespace, argv: Sequence[str]) -> int:
    """Make the report of a finished evaluation anew from its numbers; no model and no judge is loaded."""
    from dataclasses import replace

    from diffpref.core.errors import DataError
    from diffpref.data import decode_image
    from diffpref.evaluation.standings import Standings

    if arguments.contenders or arguments.prompts or arguments.rewards:
        raise ConfigError("--again: takes an evaluation as it is; leave out contenders, prompts and rewards")
    output = Path(arguments.again)
    standings = Standings.load(output / "results.json")
    standings = replace(standings, against=arguments.against, ties=arguments.ties)

    def pictures(name: str, positions: Sequence[int]) -> list[Any]:
        return [decode_image(output / "pictures" / name / f"{position:05d}.png") for position in positions]

    try:
        report = _write(arguments, argv, standings, pictures, output, [], {})
    except DataError:
        report = _write(arguments, argv, standings, None, output, [], {})
    return _tell(arguments, standings, report)


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
        help="a text file, a .jsonl file with 'prompt', shapes:SPLIT[:COUNT | :START-STOP], or several prompts",
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
        help="which pictures stay as PNG: all, those that the report shows, or none",
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
    parser.add_argument("--solver", choices=("ddim", "dpmpp_2m"), default="ddim")
    parser.add_argument("--batch_size", type=int, default=16, help="pictures drawn at once")
    parser.add_argument("--device", help="where networks run; not given: the accelerator, if there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
