"""``diffpref loop``: rounds of drawing, judging and training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from diffpref.cli._arguments import Parser, build_section
from diffpref.cli._reporting import is_main, tell_progress
from diffpref.config import parse_yaml
from diffpref.core.errors import ConfigError

__all__ = ["main"]

PLAIN = ("output", "seed", "rounds", "prompts")


def main(argv: Sequence[str]) -> int:
    """Run the rounds that are not done yet, then say where the result lies."""
    parser = Parser(
        prog="diffpref loop",
        description="Run the rounds of a loop, each an ordinary store and an ordinary run: rounds/000/{data,run} and"
        " loop.json. What an interrupted loop has done is not done again; 'diffpref list loops' names the methods.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a bundled recipe")
    parser.add_argument("--output", help="folder of the loop")
    parser.add_argument("--seed", help="of every draw and every run")
    parser.add_argument("--rounds", help="how many rounds")
    parser.add_argument("--prompts", nargs="+", help="where prompts come from")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="PATH=VALUE",
        help="any other value of the recipe by its dotted path: training.optim.learning_rate=1e-4",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.read(argv)
    from diffpref.loops import LoopRecipe, run_loop

    recipe = build_section(LoopRecipe, arguments.recipe, _given(arguments))
    tell_progress()
    progress = run_loop(recipe)
    if not is_main():
        return 0
    if arguments.json:
        print(json.dumps({"output": recipe.output, "rounds": progress.done}, indent=1, ensure_ascii=False))
        return 0
    for entry in progress.done:
        judged = f", mean score {entry['judge']['mean']:.4f}" if entry["judge"] else ""
        train = entry["train"]
        accuracy = f", accuracy {train['rewards/accuracies']:.2f}" if "rewards/accuracies" in train else ""
        taught = f"{entry['taught']:,} of {entry['records']:,} records teach"
        print(f"round {entry['round']}: {taught}{judged}; {train.get('step', 0)} updates{accuracy}")
    print(f"the policy: {progress.stage_of(progress.round).policy.to_json() or recipe.model.path}")
    return 0


def _given(arguments: Any) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name in PLAIN:
        value = getattr(arguments, name)
        if value is None:
            continue
        if name == "prompts":
            given[name] = value if len(value) > 1 else value[0]
        else:
            given[name] = value if name == "output" else parse_yaml(value, where=f"--{name}")
    for word in arguments.set:
        path, equals, value = word.partition("=")
        if not (path and equals):
            raise ConfigError(f"--set {word}: expected PATH=VALUE")
        given[path] = parse_yaml(value, where=f"--set {path}")
    return given
