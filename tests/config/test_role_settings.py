"""The ``roles`` section of a recipe changes what a method declares, and says what is wrong with a change."""

from __future__ import annotations

import pytest

from diffpref.config import build_recipe, load_recipe, parse_recipe_cli, parse_yaml, resolve_roles, save_recipe
from diffpref.core.contracts import Ema, Every, RoleSpec, Snapshots
from diffpref.core.errors import ConfigError

SMALL = {
    "output": "runs/x",
    "model": {"family": "sdxl", "path": "bundled:shapes-sdxl"},
    "data": {"source": "data/x"},
    "method": "diffusion_dpo",
}
DECLARED = {"reference": RoleSpec(), "behaviour": RoleSpec("copy", Every(1), in_prepare=True)}

CHANGES = {
    "reference: {source: copy, update: {ema: {decay: 0.99}}}": RoleSpec("copy", Ema(0.99)),
    "reference: {update: {every: {updates: 30, tau: 0.6}}}": RoleSpec("auto", Every(30, 0.6)),
    "reference: {update: {snapshots: {every: 30, draw: latest, keep: 4}}}": RoleSpec(
        "auto", Snapshots(30, "latest", keep=4)
    ),
    "reference: {update: round}": RoleSpec("auto", "round"),
    "reference: {path: runs/a/lora}": RoleSpec("path", path="runs/a/lora"),
    "reference: {update: {ema: {decay: 5e-1, ramp: 1e-3}}}": RoleSpec("auto", Ema(0.5, ramp=1e-3)),
}
MISTAKES = {
    "reference: 3": "roles.reference: must be a section of keys and values, got 3",
    "reference: {sorce: copy}": "roles.reference.sorce: unknown key; did you mean 'source'? known: source, update",
    "reference: {source: cpy}": "roles.reference.source: must be one of auto, policy, base, initial, copy,",
    "reference: {update: {emma: {decay: 1}}}": "roles.reference.update: unknown 'emma'; did you mean 'ema'?",
    "reference: {update: {ema: {decy: 0.5, decay: 0.5}}}": (
        "roles.reference.update.ema.decy: unknown key; did you mean 'decay'? known: decay, every, ramp, flat"
    ),
    "reference: {update: {ema: {}}}": "roles.reference.update.ema.decay: must be given",
    "reference: {update: {ema: {decay: 2}}}": "roles.reference.update.ema.decay: must be >= 0 and < 1, got 2.0",
    "reference: {update: {ema: {decay: true}}}": "roles.reference.update.ema.decay: must be a number, got True",
    "reference: {update: {every: {updates: 1.5}}}": (
        "roles.reference.update.every.updates: must be a whole number, got 1.5"
    ),
    "reference: {update: {snapshots: {every: 3, draw: uniformly}}}": (
        "roles.reference.update.snapshots.draw: must be one of uniform, initial, latest, got 'uniformly'; did you mean"
    ),
    "reference: {update: {every: 30}}": "roles.reference.update: options of 'every' must be keys and values, got 30",
    "reference: {update: {never: {a: 1}}}": "roles.reference.update: 'never' takes no options, got a",
    "reference: {source: base, update: {every: {updates: 3}}}": "roles.reference.update: source 'base' cannot move",
    "reference: {trained: true}": "roles.reference.trained: needs source copy, adapter or path, got 'auto'",
    "reference: {source: copy, trained: true}": "roles.reference.trained: gradients flow into policy and peer only",
    "refrence: {source: copy}": (
        "roles.refrence: the method has no such role; did you mean 'reference'? it has behaviour, reference"
    ),
    "policy: {source: copy}": "roles.policy: the policy is what is trained; adapter and model say where it starts",
}


@pytest.mark.parametrize("text", CHANGES)
def test_a_recipe_changes_a_role_and_leaves_the_others(text: str, tmp_path: object) -> None:
    recipe = build_recipe(SMALL, {"roles": parse_yaml(text)})
    assert resolve_roles(DECLARED, recipe.roles) == {**DECLARED, "reference": CHANGES[text]}
    path = f"{tmp_path}/config.yaml"
    save_recipe(recipe, path)
    assert load_recipe(path) == recipe


def test_what_is_not_given_stays_the_methods() -> None:
    recipe = build_recipe(SMALL, {"roles": {"behaviour": {"update": {"every": {"updates": 7}}}}})
    changed = resolve_roles(DECLARED, recipe.roles)["behaviour"]
    assert changed == RoleSpec("copy", Every(7), in_prepare=True)
    still = build_recipe(SMALL, {"roles": {"behaviour": {"source": "policy", "update": "never"}}})
    assert resolve_roles(DECLARED, still.roles)["behaviour"] == RoleSpec("policy", in_prepare=True)


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_line_with_its_dotted_path(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_roles(DECLARED, build_recipe(SMALL, {"roles": parse_yaml(text)}).roles)
    assert str(caught.value).startswith(MISTAKES[text]) and "\n" not in str(caught.value)


def test_a_peer_is_trained_as_a_recipe_says() -> None:
    text = "peer: {source: adapter, learning_rate_scale: 0.5}"
    given = build_recipe(SMALL, {"roles": parse_yaml(text)}).roles
    declared = {"peer": RoleSpec("copy", trained=True)}
    assert resolve_roles(declared, given)["peer"] == RoleSpec("adapter", trained=True, learning_rate_scale=0.5)


def test_the_command_line_takes_roles_as_yaml() -> None:
    words = ["--output", "x", "--model.family", "sdxl", "--model.path", "y", "--data.source", "z", "--method", "sft"]
    recipe = parse_recipe_cli([*words, "--roles", "{reference: {update: {ema: {decay: 0.9}}}}"])
    assert resolve_roles(DECLARED, recipe.roles)["reference"] == RoleSpec("auto", Ema(0.9))


def test_pictures_of_an_average_that_is_not_kept_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^validation\.ema: is true, but training\.ema\.decay is not given"):
        build_recipe(SMALL, {"validation.ema": True})
    assert build_recipe(SMALL, {"validation.ema": True, "training.ema.decay": 0.999}).training.ema.warmup
