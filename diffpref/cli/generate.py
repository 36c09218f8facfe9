"""``diffpref generate``: prompts to candidates to scores to preference data."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from diffpref.cli._arguments import Parser, add_fields, build_section, overrides
from diffpref.cli._reporting import is_main, progress_bar, score_lines, scores_json
from diffpref.loops.judging import check_scorers, load_rewards, parse_reward
from diffpref.loops.opening import fingerprint, load_model, make_guided, make_sampler, pick_device, sampler_settings

if TYPE_CHECKING:
    from diffpref.data import Store
    from diffpref.generation import GenerationPlan, GenerationRecipe

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Draw and score what the output folder lacks, then say what it holds."""
    from diffpref.generation import GenerationRecipe, summarise_scores

    parser = Parser(
        prog="diffpref generate",
        description="Draw candidates for prompts, or from a ground truth, score them, and write a store. Flags replace"
        " the recipe's values; what an interrupted run has drawn is kept, and several processes share the work.",
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
    device = pick_device(arguments.device)
    with progress_bar("candidate") as tell:
        store, num_candidates, left_out = (_draw if recipe.ground_truth is None else _draw_guided)(recipe, device, tell)
    if not is_main():
        return 0
    summaries, seconds = summarise_scores(store), time.perf_counter() - start

    if arguments.json:
        found = {
            "store": str(store.folder),
            "records": len(store),
            "candidates": num_candidates,
            "repeated_prompts": left_out,
            "scores": scores_json(summaries),
            "seconds": seconds,
        }
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    if left_out:
        what = "prompts" if recipe.ground_truth is None else "ground truths with their captions"
        print(f"{left_out:,} {what} are repetitions and were left out")
    print(f"{store.folder}: {len(store):,} prompts, {num_candidates:,} candidates, {seconds:.1f} seconds")
    print("\n".join(score_lines(summaries) or ["  no scores: name rewards, or run 'diffpref score'"]))
    return 0


def _draw(recipe: GenerationRecipe, device: str, tell: Any) -> tuple[Store, int, int]:
    """Draw for prompts; return the store, how many candidates it has, and how many prompts were there twice."""
    from diffpref.generation import generate, generate_sources, load_prompts

    assert recipe.prompts is not None
    listed = load_prompts(recipe.prompts)
    prompts = tuple(dict.fromkeys(listed))
    scorers = _scorers(recipe, device)
    sources = {one.name: partial(_open, recipe.drawn_by(one), prompts, device, one.weights) for one in recipe.sources}
    told: dict[str, Any] = {"scorers": scorers, "max_unusable": recipe.max_unusable}
    if sources:
        store = generate_sources(sources, recipe.output, tell, **told)
    else:
        store = generate(*_open(recipe, prompts, device), recipe.output, tell, **told)
    num_candidates = len(prompts) * (sum(one.candidates for one in recipe.sources) or recipe.candidates)
    return store, num_candidates, len(listed) - len(prompts)


def _draw_guided(recipe: GenerationRecipe, device: str, tell: Any) -> tuple[Store, int, int]:
    """Draw from a ground truth; return the same."""
    from diffpref.generation import generate_guided

    scorers = _scorers(recipe, device)
    plan, records, sampler = make_guided(recipe, device)
    told: dict[str, Any] = {"scorers": scorers, "max_unusable": recipe.max_unusable}
    store = generate_guided(plan, records, sampler, recipe.output, tell, **told)
    return store, plan.num_candidates, len(records) - len(plan.truths)


def _scorers(recipe: GenerationRecipe, device: str) -> Any:
    """Load the rewards, and see that they score what the models make before these are loaded."""
    scorers = load_rewards(recipe.rewards, device)
    for model in filter(None, [recipe.model, *(one.model for one in recipe.sources)]):
        check_scorers(scorers, model.family)
    return scorers


def _open(
    recipe: GenerationRecipe, prompts: tuple[str, ...], device: str, weights: str | None = None
) -> tuple[GenerationPlan, Any]:
    """Load a recipe's model; return the plan of its candidates and what draws them."""
    from diffpref.generation import GenerationPlan

    assert recipe.model is not None
    family = load_model(recipe.model, device, weights)
    settings = sampler_settings(recipe, family)
    plan = GenerationPlan(
        prompts=prompts,
        candidates=recipe.candidates,
        seed=recipe.seed,
        settings=settings,
        generator=fingerprint(family, recipe.model, weights),
        unit_size=recipe.unit_size,
    )
    return plan, {one: make_sampler(family, one, recipe.model.precision) for one in settings}
