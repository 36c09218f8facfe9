"""``diffpref evaluate``: compare an aligned model with its base."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from diffpref.cli._arguments import Parser
from diffpref.loops.judging import judges_and_facts, parse_reward
from diffpref.loops.opening import load_model, make_sampler, pick_device

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Draw with both models, judge, and write ``report.html``, ``grid.png`` and ``results.json``."""
    arguments = _parser().read(argv)
    named = [parse_reward(word) for word in arguments.rewards]

    from diffpref.evaluation.provenance import Provenance
    from diffpref.evaluation.report import write_report
    from diffpref.evaluation.run import evaluate_run, open_run
    from diffpref.evaluation.summary import print_summary
    from diffpref.generation import load_prompts
    from diffpref.sampling import SamplerSettings
    from diffpref.training.log import read_metrics

    start = time.perf_counter()
    run = Path(arguments.run)
    recipe = open_run(run)
    source = arguments.prompts[0] if len(arguments.prompts) == 1 else arguments.prompts
    prompts = list(dict.fromkeys(load_prompts(source)))
    device = pick_device(arguments.device)
    judges, facts = judges_and_facts(named, device)
    family = load_model(recipe.model, device)
    told = recipe.validation
    settings = SamplerSettings(
        num_inference_steps=arguments.num_inference_steps or told.num_inference_steps,
        guidance_scale=told.guidance_scale if arguments.guidance_scale is None else arguments.guidance_scale,
        solver=arguments.solver,
        resolution=recipe.data.resolution or family.native_resolution(),
        batch_size=arguments.batch_size,
    )
    found = evaluate_run(
        run,
        family,
        lambda family: make_sampler(family, settings, recipe.model.precision),
        prompts,
        judges,
        facts,
        num_seeds=arguments.seeds,
        seed=arguments.seed,
        on_stage=None if arguments.json else lambda stage: print(f"{stage} ...", file=sys.stderr),
    )
    output = Path(arguments.output) if arguments.output else run / "evaluation"
    provenance = Provenance(
        command=shlex.join(["diffpref", "evaluate", *argv]),
        config=(run / "config.yaml").read_text(encoding="utf-8"),
        seeds={"training": recipe.seed, "evaluation": arguments.seed},
        counts={
            "prompts": len(prompts),
            "pictures a prompt and model": arguments.seeds,
            "denoising steps": settings.num_inference_steps,
            "guidance": settings.guidance_scale,
        },
        seconds={**found.seconds, "in all": time.perf_counter() - start},
    )
    report = write_report(
        output,
        found.comparison,
        found.base_images,
        found.aligned_images,
        title=f"{run.name}: aligned with {recipe.method.name}, against {recipe.model.path}",
        metrics=read_metrics(run / "metrics.jsonl"),
        provenance=provenance,
    )
    if arguments.json:
        values = {key: value for key, value in found.comparison.to_json().items() if key != "items"}
        values |= {"report": str(report), "results": str(output / "results.json")}
        print(json.dumps(values, indent=1, ensure_ascii=False))
        return 0
    print_summary(found.comparison)
    print(f"report: {report}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="diffpref evaluate",
        description="Draw the same prompts and seeds with a run's base and with its result, and let rewards judge.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "--prompts",
        nargs="+",
        required=True,
        metavar="SOURCE",
        help="a text file, a .jsonl file with 'prompt', shapes:SPLIT[:COUNT | :START-STOP], or several prompts",
    )
    parser.add_argument(
        "--rewards",
        nargs="+",
        required=True,
        metavar="REWARD",
        help="NAME, NAME=PATH, or {NAME: {OPTION: VALUE}}; oracle reads the facts of the shapes world",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="pictures of each prompt")
    parser.add_argument("--seed", type=int, default=0, help="of the evaluation")
    parser.add_argument("--output", metavar="DIR", help="folder of the report; not given: RUN/evaluation")
    parser.add_argument("--num_inference_steps", type=int, help="not given: the recipe's validation")
    parser.add_argument("--guidance_scale", type=float, help="not given: the recipe's validation")
    parser.add_argument("--solver", choices=("ddim", "dpmpp_2m"), default="ddim")
    parser.add_argument("--batch_size", type=int, default=16, help="pictures drawn at once")
    parser.add_argument("--device", help="where networks run; not given: the accelerator, if there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
