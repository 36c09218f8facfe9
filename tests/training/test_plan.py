"""Method, objective, likelihood, adapter and data fit each other, or every misfit is said before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import pytest
from torch import Tensor

from diffpref import methods
from diffpref.config import build_recipe
from diffpref.core.contracts import RoleSpec
from diffpref.core.errors import ConfigError, DataError
from diffpref.methods.sft import SFT
from diffpref.objectives import objective, registry
from diffpref.training import Trainer
from diffpref.training.plan import Plan, make_plan

Keys = Callable[..., dict[str, Any]]


def plan(keys: dict[str, Any]) -> Plan:
    return make_plan(build_recipe(keys))


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    """Objectives that are registered from here and taken out again."""

    def toy(name: str, function: Any, **more: Any) -> None:
        objective(name, kind="pairwise", source="ours", evidence="ours", **more)(function)

    def soft(*, chosen_log_ratio: Tensor, preference: Tensor) -> Tensor:
        return -preference * chosen_log_ratio

    def peers(*, peer_chosen_logps: Tensor) -> Tensor:
        return -peer_chosen_logps

    def values(*, policy_chosen_token_value: Tensor, chosen_kl: Tensor) -> Tensor:
        return -policy_chosen_token_value.sum(1) + chosen_kl

    def lengths(*, policy_chosen_logps: Tensor, chosen_length: Tensor, chosen_segment_mask: Tensor) -> Tensor:
        return -policy_chosen_logps / chosen_length * chosen_segment_mask.sum(1)

    def chosen(*, chosen_log_ratio: Tensor) -> Tensor:
        return -chosen_log_ratio

    toy("toy_soft", soft)

    def whole(*, policy_chosen_prediction: Tensor) -> Tensor:
        return policy_chosen_prediction.flatten(1).mean(dim=1)

    toy("toy_chosen", chosen)
    toy("toy_whole", whole)
    toy("toy_peers", peers)
    toy("toy_values", values)
    toy("toy_lengths", lengths)
    yield
    for name in [name for name in registry._things if name.startswith("toy_")]:
        del registry._things[name], registry._origins[name]


def test_a_plan_runs_the_roles_that_the_objective_names_and_watches_what_is_free(recipe_keys: Keys) -> None:
    dpo = plan(recipe_keys())
    assert dpo.roles == {"policy", "reference"} and dpo.groups == ("chosen", "rejected") and dpo.columns == set()
    assert set(dpo.names) == {
        *("chosen_log_ratio", "rejected_log_ratio", "policy_chosen_logps", "policy_rejected_logps"),
        *("policy_chosen_errors", "policy_rejected_errors", "reference_chosen_errors", "reference_rejected_errors"),
    }
    sft = plan(recipe_keys(method="sft"))
    assert sft.roles == {"policy"} and set(sft.names) == {"policy_chosen_logps", "policy_chosen_errors"}
    assert plan(recipe_keys(method="sft", objective=["nll"])).composition.terms == sft.composition.terms


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"method": "sft", "objective": "dpo"}, "objective: needs rejected samples; method 'sft' prepares chosen"),
        ({"objective": "toy_peers"}, "objective: needs the role peer; method 'diffusion_dpo' has policy, reference"),
        ({"objective": "toy_values"}, "objective: needs policy_chosen_token_value; the likelihood 'denoising' of this"),
        (
            {"method": "dpo"},
            "method: 'dpo' is an objective, not a method; put it under objective. Methods: ",
        ),
        (
            {"method": {"denoising": {"draws": 2}}, "objective": "toy_whole"},
            "method.denoising.draws: must be 1, got 2: the objective needs whole answers, policy_chosen_prediction",
        ),
        ({"method": "difusion_dpo"}, "method: unknown method 'difusion_dpo'; did you mean 'diffusion_dpo'?"),
        ({"objective": "nlll"}, "objective[0]: unknown objective 'nlll'; did you mean 'nll'?"),
        ({"objective": {"dpo": {"bta": 1}}}, "objective[0].dpo.bta: unknown option; did you mean 'beta'?"),
        ({"model__family": "sdx"}, "model.family: unknown family 'sdx'; did you mean 'sdxl'?"),
        ({"adapter": {"kind": "full", "dora": True}}, "adapter.dora: is a LoRA's; with adapter.kind full"),
        ({"adapter": {"kind": "dora"}}, "adapter.kind: unknown adapter 'dora'; did you mean 'lora'?"),
    ],
)
def test_a_misfit_is_one_line(recipe_keys: Keys, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(recipe_keys(**changes))
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_what_a_denoiser_lacks_is_told_with_the_reason(recipe_keys: Keys) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(recipe_keys(objective="toy_lengths"))
    lengths, segments = str(caught.value).splitlines()
    assert lengths.startswith("objective: needs chosen_length; a denoiser's samples have no length; choose an")
    assert segments.startswith("objective: needs chosen_segment_mask; segments are the frames of a video, which a")


def test_a_reference_that_the_method_has_not_is_told(recipe_keys: Keys) -> None:
    class Alone(SFT):
        """A method of the policy alone."""

        @property
        def roles(self) -> Mapping[str, RoleSpec]:
            return {}

    methods.registry.register("toy_alone")(Alone)
    try:
        with pytest.raises(ConfigError, match="objective: needs the role reference; method 'toy_alone' has policy"):
            plan(recipe_keys(method="toy_alone", objective={"toy_chosen": {}}))
    finally:
        del methods.registry._things["toy_alone"], methods.registry._origins["toy_alone"]


def test_a_method_says_whose_answers_it_prepares_for(recipe_keys: Keys) -> None:
    class Words(SFT):
        """A method of text."""

        likelihood: ClassVar[str] = "tokens"

    methods.registry.register("toy_words")(Words)
    try:
        line = "method: 'toy_words' prepares rows for the likelihood 'tokens'; family 'sdxl' is read by 'denoising'"
        with pytest.raises(ConfigError, match=line):
            plan(recipe_keys(method="toy_words"))
    finally:
        del methods.registry._things["toy_words"], methods.registry._origins["toy_words"]


def test_all_mistakes_are_told_at_once(recipe_keys: Keys) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(
            recipe_keys(
                method={"diffusion_dpo": {"shre_noise": True}},
                objective=[{"dpo": {"beta": -1}}, "nlll"],
                adapter={"kind": "lorra"},
                model__family="sdxxl",
            )
        )
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "model.family",
        "adapter.kind",
        "method.diffusion_dpo.shre_noise",
        "objective[0].dpo.beta",
        "objective[1]",
    ]


def test_a_column_that_the_data_lack_is_said_before_a_model_is_loaded(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys(objective="toy_soft", model__path="/nowhere")))
    with pytest.raises(DataError, match="need the columns preference; the data give chosen_score, "):
        trainer.setup()


def test_row_26_fewer_pairs_than_an_update_takes_are_said_before_a_model_is_loaded(recipe_keys: Keys) -> None:
    keys = recipe_keys(model__path="/nowhere", training={"batch_size": 5, "accumulation": 4})
    with pytest.raises(DataError, match=r"16 pairs are fewer than the 20 of one update \(training\.batch_size x"):
        Trainer(build_recipe(keys)).setup()
