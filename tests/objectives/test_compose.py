"""Objectives composed from a recipe: validation, what they ask for, exact reduction."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from diffpref import objectives
from diffpref.core.annotations import NonNegative, Positive
from diffpref.core.contracts import Terms
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.objectives import compose, objective, reduce_sums, registry
from diffpref.objectives.base import Objective


def pair(count: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    names = ("chosen_log_ratio", "rejected_log_ratio", "policy_chosen_logps")
    return {name: torch.randn(count, generator=generator, dtype=torch.float64) for name in names}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Objective[..., Terms]:
    """A second objective with weights and running statistics, registered from here and taken out again."""
    for table in ("_things", "_aliases", "_origins"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))

    @objective(
        "toy_centred",
        kind="pointwise",
        source="ours",
        evidence="ours",
        init=lambda: {"mean": torch.zeros((), dtype=torch.float64)},
    )
    def toy_centred(
        *, policy_chosen_logps: Tensor, weight: Tensor | None = None, state: dict[str, Tensor], power: Positive = 2.0
    ) -> Terms:
        """Punish the distance from a running mean."""
        mean = 0.9 * state["mean"] + 0.1 * policy_chosen_logps.detach().mean()
        return Terms((policy_chosen_logps - mean).abs() ** power, weights=weight, state={"mean": mean})

    return toy_centred


def test_a_composition_asks_for_what_its_terms_name() -> None:
    both = compose([("dpo", {}), ("nll", {"coefficient": 0.5})])
    assert both.tensors == ("chosen_log_ratio", "rejected_log_ratio", "policy_chosen_logps")
    assert both.optional == ("preference", "chosen_length")
    assert both.roles == {"policy", "reference"} and both.groups == {"chosen", "rejected"}
    assert both.coupling is None


def test_records_are_coupled_only_by_the_options_that_couple_them() -> None:
    assert compose([("dpo", {}), ("rpo", {})], "tokens").coupling == "batch"
    assert compose([("dpo", {}), ("rpo", {"nll": "token_mean_seq"})], "tokens").coupling is None
    assert compose([("rpo", {})], "denoising").coupling is None


def test_a_reference_free_objective_runs_no_reference() -> None:
    sft = compose([("nll", {})])
    assert sft.roles == {"policy"} and sft.groups == {"chosen"}


def test_defaults_follow_the_likelihood() -> None:
    assert compose([("dpo", {})]).effective_options[0]["dpo"]["beta"] == 5000
    assert compose([("dpo", {})], "tokens").effective_options[0]["dpo"]["beta"] == 0.1
    assert compose([("ipo", {})]).effective_options[0]["ipo"]["length_normalize"] is False


def test_effective_options_compose_to_the_same_again() -> None:
    first = compose([("sigmoid", {"beta": "1e3"}), ("sft", {"coefficient": 2})])
    again = compose([(name, options) for term in first.effective_options for name, options in term.items()])
    assert again.effective_options == first.effective_options
    assert first.effective_options[0] == {"dpo": {"coefficient": 1.0, "beta": 1000.0, "label_smoothing": 0.0}}


def test_terms_are_the_objectives_themselves() -> None:
    tensors = pair()
    results = compose([("dpo", {"beta": 2}), ("nll", {"coefficient": 0.5})])(tensors)
    assert [(coefficient, name) for coefficient, name, _ in results] == [(1.0, "dpo"), (0.5, "nll")]
    expected = objectives.dpo(
        chosen_log_ratio=tensors["chosen_log_ratio"], rejected_log_ratio=tensors["rejected_log_ratio"], beta=2
    )
    assert torch.equal(results[0][2].losses, expected)
    assert torch.equal(results[1][2].losses, -tensors["policy_chosen_logps"])


def test_an_optional_column_is_used_when_the_batch_has_it() -> None:
    tensors = pair()
    plain = compose([("dpo", {})])(tensors)[0][2].losses
    soft = compose([("dpo", {})])({**tensors, "preference": torch.full((6,), 0.7)})[0][2].losses
    assert not torch.equal(plain, soft)


def test_every_mistake_is_named_with_its_path() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(
            [
                ("dpo", {"beta": -1, "lable_smoothing": 0.1}),
                ("nlll", {}),
                ("dpo", {"beta": float("nan"), "label_smoothing": 0.5}),
                ("ipo", {"length_normalize": "perhaps", "tau": True, "coefficient": float("inf")}),
            ]
        )
    assert str(caught.value).splitlines() == [
        "objective[0].dpo.beta: must be > 0, got -1",
        "objective[0].dpo.lable_smoothing: unknown option; did you mean 'label_smoothing'? known: beta,"
        " label_smoothing",
        "objective[1]: unknown objective 'nlll'; did you mean 'nll'? known:"
        f" {len(registry.names())} names, see 'diffpref list'",
        "objective[2].dpo.beta: must be a finite number, got nan",
        "objective[2].dpo.label_smoothing: must be < 0.5, got 0.5",
        "objective[3].ipo.coefficient: must be a finite number, got inf",
        "objective[3].ipo.tau: must be a number, got True",
        "objective[3].ipo.length_normalize: must be true or false, got 'perhaps'",
    ]


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one term"):
        compose([])


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(ConfigError, match="'dpo' needs rejected_log_ratio; got chosen_log_ratio"):
        compose([("dpo", {})])({"chosen_log_ratio": torch.zeros(2)})


@pytest.mark.parametrize("sizes", [(6,), (2, 4), (1, 1, 1, 1, 1, 1)])
def test_the_reduced_loss_does_not_depend_on_how_the_batch_is_divided(toy: object, sizes: tuple[int, ...]) -> None:
    tensors = {**pair(), "weight": torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 3.0])}
    both = compose([("dpo", {"beta": 1}), ("toy_centred", {})])
    state = {"1.mean": torch.tensor(0.3, dtype=torch.float64)}

    def frozen(part: dict[str, Tensor]) -> list[tuple[float, str, Terms]]:
        losses = (part["policy_chosen_logps"] - state["1.mean"]).square()
        return [both(part, state)[0], (1.0, "toy", Terms(losses, part["weight"]))]

    whole = [(s / w).item() for s, w in reduce_sums(frozen(tensors))]
    parts = [
        reduce_sums(frozen(dict(zip(tensors, group, strict=True))))
        for group in zip(*(tensor.split(sizes) for tensor in tensors.values()), strict=True)
    ]
    for k, expected in enumerate(whole):
        divided = sum(part[k][0] for part in parts) / sum(part[k][1] for part in parts)
        assert float(divided) == pytest.approx(expected, rel=1e-13)


def test_weights_carry_no_gradient_and_default_to_one() -> None:
    weights = torch.ones(3, requires_grad=True)
    losses = torch.arange(3.0, requires_grad=True)
    ((total, count), (plain, number)) = reduce_sums([(1.0, "a", Terms(losses, weights)), (1.0, "b", Terms(losses))])
    total.backward()
    assert weights.grad is None and not count.requires_grad
    assert (plain.item(), number.item()) == (3.0, 3.0)


def test_running_statistics_go_in_and_come_out_under_their_term(toy: object) -> None:
    both = compose([("nll", {}), ("toy_centred", {})])
    assert both.initial_state() == {"1.mean": torch.zeros((), dtype=torch.float64)}
    tensors = {"policy_chosen_logps": torch.tensor([10.0, 20.0], dtype=torch.float64)}
    state = both(tensors, both.initial_state())[1][2].state
    assert state is not None and state["1.mean"].item() == pytest.approx(1.5)
    again = both(tensors, state)[1][2].state
    assert again is not None and again["1.mean"].item() == pytest.approx(2.85)
    assert both(tensors)[0][2].state is None


def test_metrics_use_the_beta_of_the_preference_term() -> None:
    tensors = pair()
    metrics = compose([("nll", {}), ("dpo", {"beta": 3})]).metrics(tensors)
    expected = 3 * (tensors["chosen_log_ratio"] - tensors["rejected_log_ratio"])
    torch.testing.assert_close(metrics["rewards/margins"], expected)
    assert compose([("nll", {})]).metrics(tensors) == {}


def declare(function: object) -> None:
    objective("toy_broken", kind="pairwise", source="ours", evidence="ours")(function)  # type: ignore[arg-type]


def test_a_misnamed_tensor_is_refused_when_it_is_declared() -> None:
    def misnamed(*, choosen_log_ratio: Tensor) -> Tensor:
        return choosen_log_ratio

    with pytest.raises(ConfigError, match="unknown group 'choosen'; did you mean 'chosen'"):
        declare(misnamed)


def test_declarations_that_cannot_be_read_are_refused() -> None:
    def positional(chosen_log_ratio: Tensor) -> Tensor:
        return chosen_log_ratio

    def unannotated(*, chosen_log_ratio: Tensor, beta=1.0) -> Tensor:  # type: ignore[no-untyped-def]
        return chosen_log_ratio * beta

    def optional_model(*, chosen_log_ratio: Tensor, rejected_log_ratio: Tensor | None = None) -> Tensor:
        return chosen_log_ratio

    def stateful(*, chosen_log_ratio: Tensor, state: dict[str, Tensor]) -> Tensor:
        return chosen_log_ratio

    def tensorless(*, beta: NonNegative = 1.0) -> Tensor:
        return torch.tensor(beta)

    for function, message in (
        (positional, "must be keyword-only"),
        (unannotated, "needs an annotation"),
        (optional_model, "cannot be optional"),
        (stateful, "init="),
        (tensorless, "names no tensor"),
    ):
        with pytest.raises(ConfigError, match=message):
            declare(function)


def test_a_direct_call_refuses_bad_options() -> None:
    zero = torch.zeros(1)
    with pytest.raises(ConfigError, match=r"dpo\.beta: must be > 0, got 0"):
        objectives.dpo(chosen_log_ratio=zero, rejected_log_ratio=zero, beta=0)
    with pytest.raises(ConfigError, match=r"dpo\.bata: unknown option; did you mean 'beta'"):
        objectives.dpo(chosen_log_ratio=zero, rejected_log_ratio=zero, bata=1)  # type: ignore[call-arg]


def test_a_column_that_would_broadcast_is_refused() -> None:
    three = torch.zeros(3)
    with pytest.raises(ShapeError, match="preference"):
        objectives.dpo(chosen_log_ratio=three, rejected_log_ratio=three, preference=torch.ones(3, 1))
    with pytest.raises(ShapeError, match="preference"):
        objectives.dpo(chosen_log_ratio=three, rejected_log_ratio=three, preference=torch.tensor(1.0))


def test_importing_the_objectives_loads_no_model_library() -> None:
    code = "import sys, diffpref.objectives; print({'diffusers', 'transformers', 'accelerate'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
