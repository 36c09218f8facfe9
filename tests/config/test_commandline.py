"""Flags replace a recipe's values; the flags of the diffusers scripts work; mistakes are a line each."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffpref.config import ALIASES, build_recipe, dump_yaml, parse_recipe_cli
from diffpref.config.problems import dotted_names
from diffpref.config.recipe import Recipe
from diffpref.core.errors import ConfigError

REQUIRED = "--model.family sdxl --model.path m --data.source d --method diffusion_dpo --output o".split()


def test_flags_override_the_file_which_overrides_the_defaults(tmp_path: Path) -> None:
    file = {
        "output": "runs/file",
        "seed": 1,
        "model": {"family": "sdxl", "path": "m", "precision": "bf16"},
        "method": "diffusion_dpo",
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_yaml(file))
    recipe = parse_recipe_cli([str(path), "--data.source", "X", "--seed=2", "--optim.learning_rate", "1e-5"])
    expected = {**file, "seed": 2, "data": {"source": "X"}, "optim": {"learning_rate": 1e-5}}
    assert recipe == build_recipe(expected)


@pytest.mark.parametrize(
    ("flags", "path", "value"),
    [
        (["--objective", "[{dpo: {beta: 100}}, nll]"], "objective", [{"dpo": {"beta": 100}}, "nll"]),
        (["--objective", "dpo", "nll"], "objective", ["dpo", "nll"]),
        (["--objective", "ipo"], "objective", ["ipo"]),
        (["--method", "{diffusion_dpo: {prompt_dropout: 0}}"], "method", {"diffusion_dpo": {"prompt_dropout": 0}}),
        (["--optim.betas", "0.5", "9e-1"], "optim.betas", [0.5, 0.9]),
        (["--optim.betas", "[0.5, 0.9]"], "optim.betas", [0.5, 0.9]),
        (["--validation.prompts", "a: b", "no"], "validation.prompts", ["a: b", "no"]),
        (["--validation.prompts", "[a, b]"], "validation.prompts", ["a", "b"]),
        (["--validation.seeds", "1", "2"], "validation.seeds", [1, 2]),
        (["--seed", "-3"], "seed", -3),
        (["--model.revision", "123"], "model.revision", "123"),
        (["--data.score", "null"], "data.score", None),
        (["--data.drop-ties", "false"], "data.drop_ties", False),
        (["--learning_rate", "2e-6"], "optim.learning_rate", 2e-6),
        (["--learning-rate=2e-6"], "optim.learning_rate", 2e-6),
        (["--beta_dpo", "5000"], "objective", [{"dpo": {"beta": 5000}}]),
        (["--mixed_precision", "no"], "model.precision", "fp32"),
        (["--mixed_precision=fp16"], "model.precision", "fp16"),
        (["--gradient_checkpointing"], "model.gradient_checkpointing", True),
        (["--gradient_checkpointing=every_second"], "model.gradient_checkpointing", "every_second"),
        (["--enable_xformers_memory_efficient_attention"], "model.attention", "xformers"),
        (["--max_train_steps", "7"], "training.steps", 7),
        (["--train_batch_size", "7"], "training.batch_size", 7),
        (["--gradient_accumulation_steps", "7"], "training.accumulation", 7),
        (["--checkpointing_steps", "7"], "training.checkpoint_every", 7),
        (["--rank", "7"], "adapter.rank", 7),
    ],
)
def test_a_flag_sets_its_value(flags: list[str], path: str, value: object) -> None:
    base = [w for k, v in zip(REQUIRED[::2], REQUIRED[1::2], strict=True) if k not in flags for w in (k, v)]
    dumped = parse_recipe_cli([*base, *flags]).model_dump(mode="json")
    for part in path.split("."):
        dumped = dumped[part]
    assert dumped == value


def test_the_diffusers_command_line_works_as_it_is() -> None:
    recipe = parse_recipe_cli(
        "--pretrained_model_name_or_path stabilityai/stable-diffusion-xl-base-1.0 --dataset_name d --output_dir o "
        "--model.family sdxl --method diffusion_dpo --lr_scheduler cosine --lr_warmup_steps 10 --seed 0".split()
    )
    assert recipe.model.path == "stabilityai/stable-diffusion-xl-base-1.0"
    assert (recipe.data.source, recipe.output, recipe.optim.schedule) == ("d", "o", "cosine")


def test_every_alias_leads_to_a_value() -> None:
    assert set(ALIASES.values()) <= set(dotted_names(Recipe))


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        (["--data.sorce", "x"], ["--data.sorce: unknown flag; did you mean '--data.source'? --help lists all"]),
        (["--train.steps"], ["--train.steps: unknown flag; did you mean '--training.steps'? --help lists all"]),
        (["--xyzzy"], ["--xyzzy: unknown flag; --help lists all"]),
        (["--seed"], ["--seed: needs a value"]),
        (["--seed", "--output", "x"], ["--seed: needs a value"]),
        (["--seed", "1", "--seed", "2"], ["--seed: given twice, first as --seed"]),
        (["--rank", "1", "--adapter.rank=2"], ["--adapter.rank: given twice, first as --rank"]),
        (["a.yaml", "b.yaml"], ["one recipe is expected, got 2: a.yaml, b.yaml"]),
        (
            ["--sed", "1", "--rank"],
            ["--sed: unknown flag; did you mean '--seed'? --help lists all", "--rank: needs a value"],
        ),
        (["--objective", "[{dpo: {beta: 1"], ["--objective, line 1: not readable as YAML: "]),
    ],
)
def test_mistakes_in_the_line_are_a_line_each(flags: list[str], lines: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe_cli(flags)
    found = str(caught.value).splitlines()
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True))


def test_mistakes_in_values_are_judged_with_the_rest() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe_cli([*REQUIRED, "--seed", "true", "--training.steps", "1e3", "--model.attention", "xformer"])
    assert str(caught.value).splitlines() == [
        "seed: must be a whole number, got True",
        "model.attention: must be one of auto, native, xformers, got 'xformer'; did you mean 'xformers'?",
        "training.steps: must be a whole number, got '1e3'",
    ]


def test_help_lists_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_recipe_cli(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{path}" in text for path in dotted_names(Recipe))
