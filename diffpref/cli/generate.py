"""``diffpref generate``: prompts to candidates to scores to preference data."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from diffpref.cli._arguments import Parser, add_fields, build_section, overrides
from diffpref.cli._reporting import is_main, progress_bar, score_lines, scores_json
from diffpref.loops.judging import load_rewards, parse_reward
from diffpref.loops.opening import fingerprint, load_model, make_sampler, pick_device, sampler_settings

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Draw and score what the output folder lacks, then say what it holds."""
    from diffpref.generation import GenerationPlan, GenerationRecipe, generate, load_prompts, summarise_scores

    parser = Parser(
        prog="diffpref generate",
        description="Draw candidates for prompts, score them, and write a store. Flags replace the recipe's values;"
        " what an interrupted run has drawn is kept, and several processes share the work.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a bundled recipe")
    parser.add_argument("--device", help="where networks run; not given: the accelerator, if there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_fields(parser, GenerationRecipe)
    arguments = parser.read(argv)
    rewards = arguments.__dict__.pop("rewards", None)
    given = overrides(arguments, GenerationRecipe)
    if rewards is not None:
        given["rewards"] = [parse_reward(word) for word in rewards]
    recipe = build_section(GenerationRecipe, arguments.recipe, given)

    start = time.perf_counter()
    listed = load_prompts(recipe.prompts)
    prompts = tuple(dict.fromkeys(listed))
    device = pick_device(arguments.device)
    scorers = load_rewards(recipe.rewards, device)
    family = load_model(recipe.model, device)
    settings = sampler_settings(recipe, family)
    plan = GenerationPlan(
        prompts=prompts,
        candidates=recipe.candidates,
        seed=recipe.seed,
        settings=settings,
        generator=fingerprint(family, recipe.model),
        unit_size=recipe.unit_size,
    )
    samplers = {one: make_sampler(family, one, recipe.model.precision) for one in settings}
    with progress_bar("candidate") as tell:
        store = generate(plan, samplers, recipe.output, tell, scorers=scorers, max_unusable=recipe.max_unusable)
    if not is_main():
        return 0
    summaries, seconds = summarise_scores(store), time.perf_counter() - start

    if arguments.json:
        found = {
            "store": str(store.folder),
            "records": len(store),
            "candidates": plan.num_pictures,
            "repeated_prompts": len(listed) - len(prompts),
            "scores": scores_json(summaries),
            "seconds": seconds,
        }
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    if len(listed) > len(prompts):
        print(f"{len(listed) - len(prompts):,} prompts are repetitions and were left out")
    print(f"{store.folder}: {len(store):,} prompts, {plan.num_pictures:,} candidates, {seconds:.1f} seconds")
    print("\n".join(score_lines(summaries) or ["  no scores: name rewards, or run 'diffpref score'"]))
    return 0
