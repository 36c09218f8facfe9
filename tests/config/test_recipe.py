"""A recipe says everything, refuses what it cannot mean, and reads back equal."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from diffpref.cli import main
from diffpref.config import (
    Named,
    Recipe,
    Section,
    build_recipe,
    dump_yaml,
    load_recipe,
    load_yaml,
    parse_yaml,
    recipe_names,
    save_recipe,
)
from diffpref.config.recipe import find_recipe
from diffpref.config.sections import Data, Training
from diffpref.core.annotations import NonNegative
from diffpref.core.errors import ConfigError
from diffpref.generation import CaptionRecipe, GenerationRecipe
from diffpref.loops import load_alignment, load_loop

SMALL = {
    "output": "runs/x",
    "model": {"family": "sdxl", "path": "bundled:shapes-sdxl"},
    "data": {"source": "data/x"},
    "method": "diffusion_dpo",
}

# override in YAML -> the line that a user reads
MISTAKES = {
    "sede: 3": "sede: unknown key; did you mean 'seed'? known: format, seed, output, ",
    "data.sorce: x": "data.sorce: unknown key; did you mean 'source'? known: source, ",
    "optim.lr: 1": "optim.lr: unknown key; known: kind, fused, learning_rate, ",
    "learning_rate: 1": "learning_rate: unknown key; did you mean 'optim.learning_rate'? known: format, ",
    "training.rank: 1": "training.rank: unknown key; did you mean 'adapter.rank'? known: steps, ",
    "trainer: {steps: 3}": "trainer: unknown key; did you mean 'training'?",
    "format: 2": "format: must be 1, got 2",
    "seed: 1.0": "seed: must be a whole number, got 1.0",
    "seed: '3'": "seed: must be a whole number, got '3'",
    "seed: yes": "seed: must be a whole number, got True",
    "seed:": "seed: must be a whole number, got None",
    "output: ''": "output: must not be empty",
    "output: no": "output: must be text, got False; YAML reads yes, no, on and off as booleans: put quotes",
    "output: 2024-01-01": "output: must be text, got datetime.date(2024, 1, 1)",
    "model: sdxl": "model: must be a section of keys and values, got 'sdxl'",
    "model.path: 3": "model.path: must be text, got 3",
    "model.attention: xformer": (
        "model.attention: must be one of auto, native, xformers, got 'xformer'; did you mean 'xformers'?"
    ),
    "model.precision: 16": "model.precision: must be one of fp32, bf16, fp16, got 16",
    "model.gradient_checkpointing: 1": "model.gradient_checkpointing: must be true, false or every_second, got 1",
    "model.gradient_checkpointing: 'yes'": "model.gradient_checkpointing: must be true, false or every_second, got 'y",
    "adapter.rank: 0": "adapter.rank: must be > 0, got 0",
    "adapter.rank: 4.5": "adapter.rank: must be a whole number, got 4.5",
    "adapter.alpha: -2": "adapter.alpha: must be > 0, got -2",
    "adapter.targets: to_q": "adapter.targets: must be a list, got 'to_q'",
    "adapter.targets: [to_q, 3]": "adapter.targets[1]: must be text, got 3",
    "data.pairing: best": "data.pairing: must be one of best_vs_worst, all_pairs, adjacent, got 'best'",
    "data.min_gap: -0.1": "data.min_gap: must be >= 0, got -0.1",
    "data.min_gap: .nan": "data.min_gap: must be a finite number, got nan",
    "data.resolution: large": "data.resolution: must be a whole number, got 'large'",
    "method: [a, b]": "method: must be a name or {name: {option: value}}, got ['a', 'b']",
    "method: {a: {}, b: {}}": "method: must be a name or {name: {option: value}}, got 2 keys: a, b",
    "method: os.system": "method: must be a name or {name: {option: value}}, got 'os.system'; names are letters",
    "method: {diffusion_dpo: 3}": "method: options of 'diffusion_dpo' must be keys and values, got 3",
    "method:": "method: must be a name or {name: {option: value}}, got None",
    "objective: []": "objective: must be at least 1 items, got []",
    "objective: [dpo, 3]": "objective[1]: must be a name or {name: {option: value}}, got 3",
    "optim.learning_rate: -1": "optim.learning_rate: must be > 0, got -1",
    "optim.learning_rate: 1e-5x": "optim.learning_rate: must be a number, got '1e-5x'",
    "optim.learning_rate: true": "optim.learning_rate: must be a number, got True",
    "optim.learning_rate: .inf": "optim.learning_rate: must be a finite number, got inf",
    "optim.learning_rate: nan": "optim.learning_rate: must be a finite number, got nan",
    "optim.betas: 0.9": "optim.betas: must be a list, got 0.9",
    "optim.betas: [0.9]": "optim.betas[1]: must be given: it has no default",
    "optim.betas: [0.9, 1.0]": "optim.betas[1]: must be < 1, got 1.0",
    "optim.betas: [0.9, 0.9, 0.9]": "optim.betas: must be at most 2 items, got",
    "optim.schedule: cosin": (
        "optim.schedule: must be one of constant, linear, cosine, got 'cosin'; did you mean 'cosine'?"
    ),
    "training.steps: 1e3": "training.steps: must be a whole number, got '1e3'",
    "training.steps: 0": "training.steps: must be > 0, got 0",
    "validation.seeds: []": "validation.seeds: must be at least 1 items, got []",
    "validation.seeds: [1, true]": "validation.seeds[1]: must be a whole number, got True",
    "validation.every: 5": "validation.prompts: must be given when validation.every is > 0, got an empty list",
}


def written(override: str) -> dict[str, Any]:
    """Return the small recipe with a mistake, as it stands in a file."""
    values = copy.deepcopy(SMALL)
    for path, value in parse_yaml(override).items():
        *sections, name = path.split(".")
        node: Any = values
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return values


@pytest.mark.parametrize("override", MISTAKES)
def test_row_27_a_mistake_is_one_line_with_its_dotted_path_and_exit_code_2(
    override: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_recipe(SMALL, parse_yaml(override))
    assert str(caught.value).startswith(MISTAKES[override])
    assert "\n" not in str(caught.value)
    (tmp_path / "recipe.yaml").write_text(dump_yaml(written(override)))
    assert main(["validate", str(tmp_path / "recipe.yaml")]) == 2
    told = capsys.readouterr()
    assert told.err == f"diffpref: {caught.value}\n" and told.out == ""


def test_row_27_the_table_is_long_and_suggests() -> None:
    assert len(MISTAKES) >= 40 and sum("did you mean" in line for line in MISTAKES.values()) >= 6


def test_row_27_all_mistakes_are_shown_at_once_and_missing_values_say_what_they_are() -> None:
    with pytest.raises(ConfigError) as caught:
        build_recipe({"sead": 1, "model": {"family": "sdxl"}, "training": {"steps": -1, "stepz": 1}})
    assert str(caught.value).splitlines() == [
        "output: must be given: folder of the run",
        "model.path: must be given: hub id, folder, .gguf file, or bundled:NAME for a model inside the package",
        f"data.source: must be given: {Data.model_fields['source'].description}",
        "method: must be given: what is put before the models: a name or {name: {option: value}}",
        "training.steps: must be > 0, got -1",
        f"training.stepz: unknown key; did you mean 'steps'? known: {', '.join(Training.model_fields)}",
        f"sead: unknown key; did you mean 'seed'? known: {', '.join(Recipe.model_fields)}",
    ]


def test_numbers_that_yaml_reads_as_text_are_numbers_where_a_number_is_expected() -> None:
    assert parse_yaml("1e-5") == "1e-5"  # this is what PyYAML does
    recipe = build_recipe(SMALL, parse_yaml("{optim.learning_rate: 1e-5, optim.betas: [9e-1, 0.99], adapter.alpha: 4}"))
    assert recipe.optim.learning_rate == 1e-5
    assert recipe.optim.betas == (0.9, 0.99)
    assert recipe.adapter.alpha == 4.0 and isinstance(recipe.adapter.alpha, float)
    assert build_recipe(SMALL, {"output": "1e-5"}).output == "1e-5"


def test_later_layers_win_sections_merge_and_lists_and_names_are_replaced() -> None:
    recipe = build_recipe(
        {**SMALL, "method": {"diffusion_dpo": {"a": 1}}, "optim": {"eps": 1e-7, "learning_rate": 1}},
        {"optim": {"learning_rate": 2}, "method": {"diffusion_dpo": {"b": 2}}},
        {"optim.learning_rate": 3, "data.source": "y", "objective": ["dpo"]},
    )
    assert (recipe.optim.learning_rate, recipe.optim.eps, recipe.optim.weight_decay) == (3, 1e-7, 1e-2)
    assert recipe.method.options == {"b": 2}
    assert recipe.data.source == "y"


def test_a_recipe_cannot_be_changed() -> None:
    recipe = build_recipe(SMALL)
    with pytest.raises(ValidationError):
        recipe.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"seed": -3, "method": {"diffusion_dpo": {"prompt_dropout": 0.1, "deep": {"x": [1, None, "no"]}}}},
        {"objective": [{"dpo": {"beta": "1e-5"}}, "nll"], "optim": {"learning_rate": 1.2345e-7, "betas": [0.5, 0.25]}},
        {
            "output": "yes",
            "adapter": {"kind": "full", "targets": ["to_q", "1"]},
            "validation": {"prompts": ["a: b", "#"]},
        },
    ],
)
def test_a_saved_recipe_reads_back_equal(more: dict[str, Any], tmp_path: Path) -> None:
    recipe = build_recipe(SMALL, more)
    save_recipe(recipe, tmp_path / "run" / "config.yaml")
    again = load_recipe(tmp_path / "run" / "config.yaml")
    assert again == recipe
    save_recipe(again, tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_bytes() == (tmp_path / "run" / "config.yaml").read_bytes()


def test_a_recipe_is_found_by_file_or_bundled_name_and_a_misspelt_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(dump_yaml(SMALL))
    assert load_recipe(tmp_path / "mine.yaml", {"seed": 5}).seed == 5
    with pytest.raises(ConfigError, match=r"absent.yaml: no such recipe file"):
        load_recipe("absent.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_recipe(tmp_path)
    bundled = tmp_path / "recipes"
    (bundled / "sdxl").mkdir(parents=True)
    (bundled / "sdxl" / "diffusion_dpo.yaml").write_text(dump_yaml(SMALL))
    monkeypatch.setattr("diffpref.config.recipe._bundled", lambda: bundled)
    assert recipe_names() == ["sdxl/diffusion_dpo"]
    for name in ("sdxl/diffusion_dpo", "sdxl/diffusion_dpo.yaml", "recipes/sdxl/diffusion_dpo.yaml"):
        assert load_recipe(name) == build_recipe(SMALL)
    with pytest.raises(ConfigError, match=r"did you mean 'sdxl/diffusion_dpo'\?"):
        load_recipe("sdxl/difusion_dpo")


@pytest.mark.parametrize("name", recipe_names())
def test_every_bundled_recipe_is_valid(name: str) -> None:
    keys = load_yaml(find_recipe(name))
    if "generation" in keys:
        assert load_alignment(name, {"output": "runs/x"}).output
    elif "loop" in keys:
        assert load_loop(name, {"output": "runs/x"}).format == 1
    elif "paraphraser" in keys:
        assert CaptionRecipe.model_validate({**keys, "source": "data/x", "output": "data/y"}).format == 1
    elif "candidates" in keys or "sources" in keys:
        assert GenerationRecipe.model_validate({"output": "data/x", **keys}).format == 1
    else:
        assert load_recipe(name, {"output": "runs/x", "data.source": "data/x"}).format == 1


def test_a_single_objective_needs_no_list() -> None:
    assert build_recipe(SMALL, {"objective": "ipo"}).objective == [Named(name="ipo")]
    assert build_recipe(SMALL, {"objective": {"ipo": {"beta": 2}}}).objective == [
        Named(name="ipo", options={"beta": 2})
    ]


def test_named_options_are_checked_by_whoever_owns_the_name() -> None:
    class Options(Section):
        beta: NonNegative = 0.1

    assert Named.model_validate({"dpo": {"beta": "1e-1"}}).validate_with(Options, "objective[0]") == Options(beta=0.1)
    with pytest.raises(ConfigError) as caught:
        Named.model_validate({"dpo": {"beta": -1, "bta": 3}}).validate_with(Options, "objective[0]")
    assert str(caught.value).splitlines() == [
        "objective[0].beta: must be >= 0, got -1",
        "objective[0].bta: unknown key; did you mean 'beta'? known: beta",
    ]


def test_every_value_of_a_recipe_is_documented() -> None:
    def missing(model: type[Section], path: str = "") -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, Section) and not kind.one_value:
                found += missing(kind, f"{path}{name}.") if kind.__doc__ else [path + name]
            elif not field.description:
                found.append(path + name)
        return found

    assert missing(Recipe) == []
