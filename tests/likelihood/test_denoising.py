"""The denoising likelihood against printed numbers, a numpy implementation and its invariants."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffpref import objectives
from diffpref.core.contracts import Conditioning, Rows
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.likelihood import WEIGHTINGS, DenoisingLikelihood, kappa
from diffpref.schedules import DiscreteSchedule, FlowSchedule, Schedule

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = json.loads((FOLDER / "likelihood" / "denoising.json").read_text())
DIFFUSION_DPO = json.loads((FOLDER / "methods" / "diffusion_dpo.json").read_text())
KINDS = ("epsilon", "v_prediction", "sample")
fast = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def printed(actual: Any, expected: Any) -> None:
    """Compare with numbers given as text, to half a unit of the last digit."""
    if isinstance(expected, list):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            printed(a, e)
        return
    number, unit = float(torch.as_tensor(actual).detach()), 10.0 ** int(Decimal(expected).as_tuple().exponent)
    assert abs(number - float(expected)) <= 0.5000001 * unit, f"{number:.12g} is not {expected}"


def schedule_of(kind: str) -> Schedule:
    if kind == "flow":
        return FlowSchedule()
    return DiscreteSchedule.from_config({**GOLDEN["schedule"], "prediction_type": kind})


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rows_of(target: Tensor, timesteps: Tensor, groups: dict[str, list[Any]] | None = None, **more: Any) -> Rows:
    groups = groups or {"chosen": list(range(len(target)))}
    indices = {name: torch.tensor(index) for name, index in groups.items()}
    return Rows("denoising", {"target": target, "timesteps": timesteps}, Conditioning({}), indices, **more)


def answers(**predictions: Tensor) -> dict[str, dict[str, Tensor]]:
    return {role: {"prediction": prediction} for role, prediction in predictions.items()}


def implied(schedule: Schedule, clean: Tensor, noise: Tensor, timesteps: Tensor, guess: Tensor) -> Tensor:
    """The prediction from which ``guess`` would be read as the clean data."""
    noisy = schedule.add_noise(clean, noise, timesteps)
    alpha, sigma = schedule.coefficients(noisy, timesteps)
    return schedule.target(guess, (noisy - alpha * guess) / sigma, timesteps)


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=lambda row: f"{row['prediction_type']} {row['t']}")
def test_golden_errors_and_log_ratios_are_met_to_the_last_printed_digit(row: dict[str, Any]) -> None:
    schedule = schedule_of(row["prediction_type"])
    timesteps = torch.tensor([row["t"]], dtype=torch.float64 if row["prediction_type"] == "flow" else torch.int64)
    clean, noise = tensor([GOLDEN["clean"]]), tensor([GOLDEN["noise"]])
    outputs = answers(
        policy=implied(schedule, clean, noise, timesteps, tensor([GOLDEN["policy_clean"]])),
        reference=implied(schedule, clean, noise, timesteps, tensor([GOLDEN["reference_clean"]])),
    )
    rows = rows_of(schedule.target(clean, noise, timesteps), timesteps)
    errors = DenoisingLikelihood(schedule)(["policy_chosen_errors", "reference_chosen_errors"], outputs, rows)
    printed(errors["policy_chosen_errors"], [row["policy_errors"]])
    printed(errors["reference_chosen_errors"], [row["reference_errors"]])
    for weighting in ("simple", "eps_equiv", "min_snr", "elbo"):
        if weighting in row:
            values = DenoisingLikelihood(schedule, weighting)(["chosen_log_ratio"], outputs, rows)
            printed(values["chosen_log_ratio"], [row[weighting]])


def test_golden_noisy_sample_velocity_and_snr() -> None:
    schedule, at = schedule_of("v_prediction"), torch.tensor([500])
    clean, noise = tensor([GOLDEN["clean"]]), tensor([GOLDEN["noise"]])
    printed(schedule.add_noise(clean, noise, at)[0], GOLDEN["at_500"]["noisy"])
    printed(schedule.target(clean, noise, at)[0], GOLDEN["at_500"]["v_target"])
    printed(schedule.snr(at)[0], GOLDEN["at_500"]["snr"])


def test_golden_min_snr_factors() -> None:
    for t, factors in GOLDEN["min_snr_factors"].items():
        for kind, expected in factors.items():
            printed(kappa("min_snr", schedule_of(kind), torch.tensor([int(t)])), [expected])
    late = torch.arange(250, 1000)
    assert torch.equal(kappa("min_snr", schedule_of("epsilon"), late), torch.ones(750, dtype=torch.float64))
    torch.testing.assert_close(
        kappa("min_snr", schedule_of("v_prediction"), late), schedule_of("v_prediction").alpha(late) ** 2
    )


def test_golden_diffusion_dpo_from_errors() -> None:
    golden = DIFFUSION_DPO["errors"]
    errors = {name: tensor(values).requires_grad_() for name, values in golden["inputs"].items()}
    for case in golden["betas"]:
        ratios = {
            side: -0.5 * (errors[f"policy_{side}_errors"] - errors[f"reference_{side}_errors"])
            for side in ("chosen", "rejected")
        }
        arguments = {f"{side}_log_ratio": ratio for side, ratio in ratios.items()}
        metrics = objectives.reward_metrics(**arguments, beta=case["beta"])
        loss = objectives.dpo(**arguments, beta=case["beta"]).mean()
        printed(metrics["rewards/margins"], case["margin"])
        printed(loss, case["loss"])
        if "accuracy" in case:
            printed(metrics["rewards/accuracies"].mean(), case["accuracy"])
            names = ["policy_chosen_errors", "policy_rejected_errors"]
            gradients = torch.autograd.grad(loss, [errors[name] for name in names])
            for name, gradient in zip(names, gradients, strict=True):
                printed(gradient, case[f"mean_gradient_{name}"])
    smoothing = golden["label_smoothing"]
    options = {"beta": smoothing["beta"], "label_smoothing": smoothing["label_smoothing"]}
    printed(objectives.dpo(**arguments, **options).mean(), smoothing["loss"])


def test_golden_diffusers_script_without_the_half() -> None:
    golden, errors = DIFFUSION_DPO["diffusers"], {k: tensor(v) for k, v in DIFFUSION_DPO["errors"]["inputs"].items()}
    arguments = {
        f"{side}_log_ratio": -0.5 * (errors[f"policy_{side}_errors"] - errors[f"reference_{side}_errors"])
        for side in ("chosen", "rejected")
    }
    printed(objectives.dpo(**arguments, beta=2 * golden["beta"]).mean(), golden["sigmoid"])
    printed(4 * objectives.ipo(**arguments, tau=2 * golden["beta"], length_normalize=False).mean(), golden["ipo"])


def test_golden_diffusion_dpo_from_predictions() -> None:
    golden = DIFFUSION_DPO["tensors"]
    parts = {
        f"{role}_{side}": tensor(golden[f"{role}_{side}"]).view(1, 1, 2, 2).requires_grad_(role == "policy")
        for role in ("policy", "reference")
        for side in ("chosen", "rejected")
    }
    outputs = answers(**{r: torch.cat([parts[f"{r}_chosen"], parts[f"{r}_rejected"]]) for r in ("policy", "reference")})
    noise = tensor(golden["noise"]).view(1, 1, 2, 2)
    rows = rows_of(torch.cat([noise, noise]), torch.tensor([500, 500]), {"chosen": [0], "rejected": [1]})
    likelihood = DenoisingLikelihood(schedule_of("epsilon"))
    for role in ("policy", "reference"):
        values = likelihood([f"{role}_chosen_errors", f"{role}_rejected_errors"], outputs, rows)
        printed(torch.cat(list(values.values())), golden[f"{role}_errors"])
    for case in golden["betas"]:
        ratios = likelihood(["chosen_log_ratio", "rejected_log_ratio"], outputs, rows)
        loss = objectives.dpo(**ratios, beta=case["beta"])
        printed(loss, [case["loss"]])
        if "margin" in case:
            printed(objectives.reward_metrics(**ratios, beta=case["beta"])["rewards/margins"], [case["margin"]])
            for side in ("chosen", "rejected"):
                (gradient,) = torch.autograd.grad(loss.sum(), parts[f"policy_{side}"], retain_graph=True)
                printed(gradient[0, 0], case[f"gradient_policy_{side}"])


@fast
@given(st.integers(20, 999), st.integers(0, 2**31 - 1))
def test_weighted_log_ratios_do_not_depend_on_what_the_network_predicts(t: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean, noise, policy, reference = torch.randn(4, 1, 3, 2, 2, generator=generator, dtype=torch.float64)
    timesteps = torch.tensor([t])
    for weighting in ("eps_equiv", "min_snr", "x0", "elbo"):
        values = []
        for kind in KINDS:
            schedule = schedule_of(kind)
            outputs = answers(
                policy=implied(schedule, clean, noise, timesteps, policy),
                reference=implied(schedule, clean, noise, timesteps, reference),
            )
            rows = rows_of(schedule.target(clean, noise, timesteps), timesteps)
            likelihood = DenoisingLikelihood(schedule, weighting)  # type: ignore[arg-type]
            values.append(likelihood(["chosen_log_ratio"], outputs, rows))
        numbers = [value["chosen_log_ratio"].item() for value in values]
        assert numbers == pytest.approx([numbers[0]] * 3, rel=1e-8, abs=1e-9), weighting


@fast
@given(st.sampled_from(KINDS), st.sampled_from(WEIGHTINGS), st.integers(20, 999), st.integers(0, 2**31 - 1))
def test_log_ratio_agrees_with_numpy(kind: str, weighting: Any, t: int, seed: int) -> None:
    draw = np.random.default_rng(seed).normal(size=(3, 2, 3, 4))
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    bar = np.cumprod(1 - betas)
    snr, before = bar[t] / (1 - bar[t]), bar[t - 1] / (1 - bar[t - 1])
    as_clean = {"epsilon": 1 / snr, "v_prediction": 1 - bar[t], "sample": 1.0}[kind]  # x0 error / native error
    on_clean = {"eps_equiv": snr, "min_snr": min(snr, 5.0), "x0": 1.0, "elbo": 1000 * 12 * (before - snr)}
    weight = 1.0 if weighting == "simple" else on_clean[weighting] * as_clean
    errors = [((p - draw[2]) ** 2).mean(axis=(1, 2)) for p in draw[:2]]
    expected = -0.5 * weight * (errors[0] - errors[1])
    rows = rows_of(tensor(draw[2]), torch.tensor([t, t]))
    outputs = answers(policy=tensor(draw[0]), reference=tensor(draw[1]))
    values = DenoisingLikelihood(schedule_of(kind), weighting)(["chosen_log_ratio"], outputs, rows)
    np.testing.assert_allclose(values["chosen_log_ratio"].numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weighting", ["simple", "eps_equiv"])
def test_flow_eps_equiv_with_constant_beta_is_simple_with_beta_of_t(weighting: Any) -> None:
    schedule, times = FlowSchedule(), tensor([0.3, 0.8])
    target = torch.zeros(2, 4, dtype=torch.float64)
    outputs = answers(policy=target + tensor([[0.1], [0.4]]), reference=target + tensor([[0.3], [0.2]]))
    simple, equivalent = (
        DenoisingLikelihood(schedule, w)(["chosen_log_ratio"], outputs, rows_of(target, times))["chosen_log_ratio"]
        for w in ("simple", "eps_equiv")
    )
    torch.testing.assert_close(equivalent, simple * (1 - times) ** 2)


def test_perfect_predictions_have_no_error_and_equal_models_a_log_ratio_of_exactly_zero() -> None:
    target = torch.randn(4, 3, 8, 8)
    rows = rows_of(target, torch.tensor([20, 500, 700, 999]), {"chosen": [0, 1], "rejected": [2, 3]})
    for weighting in WEIGHTINGS:
        likelihood = DenoisingLikelihood(schedule_of("epsilon"), weighting)  # type: ignore[arg-type]
        assert not likelihood(["policy_chosen_errors"], answers(policy=target), rows)["policy_chosen_errors"].any()
        same = torch.randn(4, 3, 8, 8)
        ratios = likelihood(["chosen_log_ratio", "rejected_log_ratio"], answers(policy=same, reference=same), rows)
        assert not ratios["chosen_log_ratio"].any() and not ratios["rejected_log_ratio"].any()
        losses = objectives.dpo(**ratios, beta=5000)
        assert torch.equal(losses, torch.full((2,), math.log(2)))


def test_the_sum_over_elements_is_the_mean_with_beta_times_their_number() -> None:
    target, policy, reference = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    rows = rows_of(target, torch.tensor([10, 900]))
    mean = DenoisingLikelihood(schedule_of("epsilon"))(
        ["chosen_log_ratio"], answers(policy=policy, reference=reference), rows
    )
    total = -0.5 * ((policy - target) ** 2 - (reference - target) ** 2).sum(dim=(1, 2))
    torch.testing.assert_close(16 * mean["chosen_log_ratio"], total)


def test_swapping_the_images_of_a_pair_swaps_their_errors() -> None:
    target, prediction = torch.randn(2, 2, 3, 4, 4)
    timesteps = torch.tensor([500, 500])
    likelihood, names = DenoisingLikelihood(schedule_of("epsilon")), ["policy_chosen_errors", "policy_rejected_errors"]
    groups: dict[str, list[Any]] = {"chosen": [0], "rejected": [1]}
    first = likelihood(names, answers(policy=prediction), rows_of(target, timesteps, groups))
    second = likelihood(names, answers(policy=prediction.flip(0)), rows_of(target.flip(0), timesteps, groups))
    assert torch.equal(first[names[0]], second[names[1]]) and torch.equal(first[names[1]], second[names[0]])


def test_half_precision_predictions_are_subtracted_and_squared_in_float32() -> None:
    target, prediction = torch.randn(2, 2, 16), torch.randn(2, 16).to(torch.bfloat16)
    rows = rows_of(target[0], torch.tensor([1, 2]))
    value = DenoisingLikelihood(schedule_of("epsilon"))(["policy_chosen_errors"], answers(policy=prediction), rows)
    assert value["policy_chosen_errors"].dtype == torch.float32
    torch.testing.assert_close(value["policy_chosen_errors"], (prediction.float() - target[0]).square().mean(dim=1))


def test_lists_gather_their_rows_and_an_absent_row_is_zero_without_gradient() -> None:
    prediction = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    rows = rows_of(torch.zeros(3, 4, dtype=torch.float64), torch.tensor([1, 2, 3]), {"list": [[0, 2], [1, -1]]})
    values = DenoisingLikelihood(schedule_of("epsilon"))(["policy_list_logps"], answers(policy=prediction), rows)
    expected = -0.5 * prediction.square().mean(dim=1)
    torch.testing.assert_close(values["policy_list_logps"][0], expected[[0, 2]])
    torch.testing.assert_close(values["policy_list_logps"][1, 0], expected[1])
    assert values["policy_list_logps"][1, 1] == 0
    values["policy_list_logps"][1, 1].backward(retain_graph=True)
    assert prediction.grad is not None and not prediction.grad.any()


def test_draws_are_averaged_before_the_objective() -> None:
    target, policy, reference = torch.randn(3, 4, 5, dtype=torch.float64)
    timesteps, groups = torch.tensor([100, 400, 900, 250]), {"chosen": [1], "rejected": [0]}
    outputs = answers(policy=policy, reference=reference)
    likelihood, names = (
        DenoisingLikelihood(schedule_of("epsilon"), "min_snr"),
        ["chosen_log_ratio", "policy_chosen_errors"],
    )
    both = likelihood(names, outputs, rows_of(target, timesteps, groups, draws=2))  # draw 0: rows 0, 1; draw 1: 2, 3
    single = likelihood(names, outputs, rows_of(target, timesteps, {"chosen": [1, 3]}))
    for name in names:
        torch.testing.assert_close(both[name], single[name].mean(dim=0, keepdim=True))


def test_gradient_flows_into_the_policy_alone_and_not_into_protected_groups() -> None:
    policy, reference = (torch.randn(2, 4, requires_grad=True) for _ in range(2))
    rows = rows_of(
        torch.zeros(2, 4), torch.tensor([1, 2]), {"chosen": [0], "mismatched": [1]}, no_grad=frozenset({"mismatched"})
    )
    names = ["chosen_log_ratio", "mismatched_log_ratio"]
    values = DenoisingLikelihood(schedule_of("epsilon"))(names, answers(policy=policy, reference=reference), rows)
    assert not values["mismatched_log_ratio"].requires_grad
    sum(value.sum() for value in values.values()).backward()  # type: ignore[union-attr]
    assert reference.grad is None and policy.grad is not None
    assert policy.grad[0].any() and not policy.grad[1].any()


def test_another_role_is_compared_with_the_reference_and_pointwise_rows_have_the_empty_group() -> None:
    target, policy, previous, reference = torch.randn(4, 2, 4)
    outputs = answers(policy=policy, previous=previous, reference=reference)
    rows = rows_of(target, torch.tensor([1, 2]), {"": [0, 1]})
    names = ["previous_log_ratio", "previous_logps", "reference_logps"]
    values = DenoisingLikelihood(schedule_of("epsilon"))(names, outputs, rows)
    torch.testing.assert_close(values["previous_log_ratio"], values["previous_logps"] - values["reference_logps"])


def test_elbo_leaves_out_the_first_timesteps_and_stays_finite() -> None:
    weights = kappa("elbo", schedule_of("epsilon"), torch.arange(1000), num_elements=4)
    assert not weights[:20].any() and (weights[20:] > 0).all() and weights.isfinite().all()
    assert kappa("elbo", FlowSchedule(), tensor([0.0, 0.01, 0.5])).tolist() == [0.0, 0.0, 2.0]


def test_min_snr_is_defined_at_zero_terminal_snr() -> None:
    config = {**GOLDEN["schedule"], "rescale_betas_zero_snr": True}
    last = torch.tensor([999])
    for kind, expected in (("epsilon", 1.0), ("v_prediction", 0.0)):
        schedule = DiscreteSchedule.from_config({**config, "prediction_type": kind})
        assert schedule.snr(last).item() == 0
        assert kappa("min_snr", schedule, last).item() == expected


def test_whole_predictions_are_given_by_group_with_gradient_only_into_what_is_trained() -> None:
    said = {name: torch.randn(4, 3, 2, 2, requires_grad=True) for name in ("policy", "peer", "behaviour")}
    rows = rows_of(torch.zeros(4, 3, 2, 2), torch.tensor([1, 2, 3, 4]))
    rows = replace(rows, groups={"chosen": torch.tensor([2, 0]), "rejected": torch.tensor([1, -1])})
    likelihood = DenoisingLikelihood(schedule_of("epsilon"), trained=frozenset({"policy", "peer"}))
    names = [f"{role}_{group}_prediction" for role in said for group in rows.groups]
    found = likelihood(names, answers(**said), rows)
    for role, prediction in said.items():
        assert torch.equal(found[f"{role}_chosen_prediction"], prediction[[2, 0]])
        assert torch.equal(found[f"{role}_rejected_prediction"][0], prediction[1])
        assert (found[f"{role}_rejected_prediction"][1] == 0).all()
        assert found[f"{role}_chosen_prediction"].requires_grad == (role != "behaviour")
    found["peer_rejected_prediction"].sum().backward()
    assert said["peer"].grad is not None and said["peer"].grad[1].eq(1).all() and said["peer"].grad.sum() == 12
    banked: dict[str, Any] = {"policy": {"errors": torch.zeros(4)}}
    with pytest.raises(ConfigError, match="'policy_chosen_prediction' needs the role's whole answer, not a bank's"):
        likelihood(["policy_chosen_prediction"], banked, rows)
    for name in ("policy_chosen_prediction", "chosen_target"):
        with pytest.raises(ConfigError, match=f"'{name}' is of a single draw; set the method's draws to 1"):
            likelihood([name], answers(policy=said["policy"]), replace(rows, draws=2))


def test_the_question_itself_is_given_by_group_without_asking_a_model() -> None:
    rows = rows_of(torch.randn(4, 3, 2, 2), torch.tensor([1, 2, 3, 4]))
    rows = replace(rows, groups={"chosen": torch.tensor([2, 0]), "rejected": torch.tensor([1, -1])})
    rows = replace(rows, inputs={**rows.inputs, "noisy": torch.randn(4, 3, 2, 2, dtype=torch.bfloat16)})
    found = DenoisingLikelihood(schedule_of("epsilon"))(["chosen_target", "rejected_noisy"], {}, rows)
    assert torch.equal(found["chosen_target"], rows.inputs["target"][[2, 0]])
    assert torch.equal(found["rejected_noisy"][0], rows.inputs["noisy"][1].float())
    assert (found["rejected_noisy"][1] == 0).all()


def test_what_cannot_be_answered_is_said() -> None:
    likelihood = DenoisingLikelihood(schedule_of("epsilon"))
    rows = rows_of(torch.zeros(2, 4), torch.tensor([1, 2]))
    outputs = answers(policy=torch.zeros(2, 4))
    for name, message in (
        ("chosen_log_ratio", "needs role 'reference', which did not run"),
        ("policy_rejected_logps", "needs group 'rejected'; the method prepared chosen"),
        ("policy_chosen_segment_logps", "does not provide 'policy_chosen_segment_logps'; segments are the frames of a"),
        ("chosen_length", "does not provide 'chosen_length'; a denoiser's samples have no length"),
        (
            "policy_chosen_value",
            "does not provide 'policy_chosen_value'; it provides collision, errors, kl, log_ratio, logps",
        ),
        ("chosen_logps", "does not provide 'chosen_logps'"),
    ):
        with pytest.raises(ConfigError, match=message):
            likelihood([name], outputs, rows)
    with pytest.raises(ShapeError, match="prediction of 'policy'"):
        likelihood(["policy_chosen_logps"], answers(policy=torch.zeros(2, 5)), rows)
    with pytest.raises(ShapeError, match="cannot hold 3 draws"):
        likelihood(["policy_chosen_logps"], outputs, rows_of(torch.zeros(2, 4), torch.tensor([1, 2]), draws=3))
    with pytest.raises(ConfigError, match="unknown 'min_snt'; did you mean 'min_snr'"):
        DenoisingLikelihood(schedule_of("epsilon"), "min_snt")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="snr_gamma: must be > 0, got 0"):
        DenoisingLikelihood(schedule_of("epsilon"), snr_gamma=0)


def test_units_of_a_denoiser_are_its_draws() -> None:
    target, policy, reference = torch.randn(3, 6, 5, dtype=torch.float64)
    timesteps = torch.tensor([100, 400, 900, 250, 700, 30])
    likelihood, draws = DenoisingLikelihood(schedule_of("epsilon"), "min_snr"), 3
    groups: dict[str, list[Any]] = {"chosen": [1], "list": [[0, 1, -1]]}  # rows 0, 1 of each of three draws
    rows = rows_of(target, timesteps, groups, draws=draws)
    outputs = answers(policy=policy, reference=reference)
    names = ["chosen_token_log_ratio", "policy_chosen_token_errors", "list_token_log_ratio", "list_token_mask"]
    units = likelihood([*names, "chosen_token_mask", "chosen_log_ratio", "list_log_ratio"], outputs, rows)
    each = likelihood(["list_log_ratio"], outputs, rows_of(target, timesteps, {"list": [[1, 3, 5]]}))["list_log_ratio"]
    torch.testing.assert_close(units["chosen_token_log_ratio"], each)
    torch.testing.assert_close(units["policy_chosen_token_errors"], (policy - target).square().mean(1)[[1, 3, 5]][None])
    torch.testing.assert_close(units["chosen_token_log_ratio"].mean(dim=1), units["chosen_log_ratio"])
    torch.testing.assert_close(units["list_token_log_ratio"].mean(dim=2), units["list_log_ratio"])
    assert torch.equal(units["chosen_token_mask"], torch.ones(1, 3))
    assert torch.equal(units["list_token_mask"], torch.tensor([[[1.0] * 3, [1.0] * 3, [0.0] * 3]]))
    assert units["list_token_log_ratio"].shape == (1, 3, 3) and not units["list_token_log_ratio"][0, 2].any()


def test_the_divergence_is_the_weighted_distance_of_the_predictions() -> None:
    target, policy, reference = torch.randn(3, 4, 5, dtype=torch.float64)
    policy.requires_grad_(True)
    reference.requires_grad_(True)
    timesteps, schedule = torch.tensor([100, 400, 900, 250]), schedule_of("v_prediction")
    rows = rows_of(target, timesteps, {"chosen": [0], "rejected": [1]}, draws=2, no_grad=frozenset({"rejected"}))
    for weighting in WEIGHTINGS:
        likelihood = DenoisingLikelihood(schedule, weighting)  # type: ignore[arg-type]
        weight = kappa(weighting, schedule, timesteps, num_elements=5)  # type: ignore[arg-type]
        each = 0.5 * weight * (policy - reference).square().mean(dim=1)
        names = ["chosen_kl", "chosen_token_kl", "rejected_kl"]
        values = likelihood(names, answers(policy=policy, reference=reference), rows)
        torch.testing.assert_close(values["chosen_token_kl"], each[[0, 2]][None])
        torch.testing.assert_close(values["chosen_kl"], each[[0, 2]].mean(dim=0, keepdim=True))
        assert not values["rejected_kl"].requires_grad
    gradient = torch.autograd.grad(values["chosen_kl"].sum(), [policy, reference], allow_unused=True)
    assert gradient[0] is not None and gradient[0][0].any() and not gradient[0][1].any() and gradient[1] is None
    with pytest.raises(ConfigError, match="'chosen_kl' needs the whole answers of two roles, not from a bank"):
        likelihood(["chosen_kl"], {"policy": {"prediction": policy}, "reference": {"errors": torch.zeros(4)}}, rows)


def test_a_models_own_draws_have_the_confidence_of_their_collision_on_average() -> None:
    """Of a unit Gaussian the mean of exp(log p) over its own draws is exp(collision), an element; no gradient."""
    size = 200_000
    prediction, noise = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True), torch.randn(size).double()
    likelihood = DenoisingLikelihood(schedule_of("epsilon"))
    rows = rows_of(tensor([[0.0]]), torch.tensor([5]))
    name = "policy_chosen_collision"
    (value,) = likelihood([name], {"policy": {"prediction": prediction}}, rows)[name]
    assert not value.requires_grad
    assert torch.exp(-0.5 * noise.square()).mean().log().item() == pytest.approx(value.item(), abs=5e-3)


def test_segments_of_a_denoiser_are_the_frames_of_a_video() -> None:
    """Frames in either place: before the channels, or after them."""
    target, policy, reference = torch.randn(3, 6, 2, 3, 4, 4, dtype=torch.float64)
    timesteps = torch.tensor([100, 400, 900, 250, 700, 30])
    groups: dict[str, list[Any]] = {"chosen": [1], "list": [[0, 1, -1]]}  # rows 0, 1 of each of three draws
    names = [f"{g}_segment_log_ratio" for g in groups] + [f"policy_{g}_segment_errors" for g in groups]
    whole = ["chosen_log_ratio", "list_log_ratio", "policy_chosen_errors", "policy_list_errors"]
    masks, asked = ["chosen_segment_mask", "list_segment_mask"], ["policy_chosen_segment_collision"]
    for weighting in WEIGHTINGS:
        likelihood = DenoisingLikelihood(schedule_of("epsilon"), weighting, unit_dims=(2,))  # type: ignore[arg-type]
        rows = rows_of(target, timesteps, groups, draws=3)
        found = likelihood([*names, *whole, *masks, *asked], answers(policy=policy, reference=reference), rows)
        for parts, mean in zip(names, whole, strict=True):
            torch.testing.assert_close(found[parts].mean(dim=-1), found[mean])
        assert found["list_segment_log_ratio"].shape == (1, 3, 3) and not found["list_segment_log_ratio"][0, 2].any()
        assert torch.equal(found["chosen_segment_mask"], torch.ones(1, 3))
        assert found["list_segment_mask"].tolist() == [[[1.0] * 3, [1.0] * 3, [0.0] * 3]]
        torch.testing.assert_close(
            found["policy_chosen_segment_errors"],
            (policy - target)[[1, 3, 5]].square().mean(dim=(1, 3, 4)).mean(dim=0, keepdim=True),
        )
        assert found["policy_chosen_segment_collision"].shape == (1, 3)
        turned = DenoisingLikelihood(schedule_of("epsilon"), weighting, unit_dims=(1,))  # type: ignore[arg-type]
        question = rows_of(target.transpose(1, 2), timesteps, groups, draws=3)
        said = answers(policy=policy.transpose(1, 2), reference=reference.transpose(1, 2))
        for name, value in turned(names, said, question).items():
            torch.testing.assert_close(value, found[name])


def test_gradient_reaches_the_frames_that_an_objective_reads_and_the_trained_roles_alone() -> None:
    target, policy, reference = torch.randn(3, 2, 2, 3, 4, 4)
    policy.requires_grad_(True)
    reference.requires_grad_(True)
    rows = rows_of(target, torch.tensor([100, 400]), {"chosen": [0], "rejected": [1]}, no_grad=frozenset({"rejected"}))
    likelihood = DenoisingLikelihood(schedule_of("epsilon"), unit_dims=(2,))
    names = ["chosen_segment_log_ratio", "rejected_segment_log_ratio"]
    found = likelihood(names, answers(policy=policy, reference=reference), rows)
    (found["chosen_segment_log_ratio"][:, 1] + found["rejected_segment_log_ratio"].sum()).sum().backward()
    assert policy.grad is not None and reference.grad is None
    assert policy.grad[0, :, 1].all() and not policy.grad[0, :, [0, 2]].any() and not policy.grad[1].any()


def test_the_golden_errors_of_dense_dpo_come_out_of_its_tensors() -> None:
    """Golden 2 of DenseDPO: predictions and targets (2, 2, 3, 2, 2), filled by sines of their row-major number."""
    k = torch.arange(48, dtype=torch.float64)
    first, second, noise = torch.sin(0.1 * k), torch.cos(0.13 * k), torch.sin(0.37 * k + 0.5)
    target = torch.stack([noise - first, noise - second])
    policy = target + 0.05 * torch.stack([torch.sin(k), torch.cos(1.3 * k)])
    reference = target + 0.05 * torch.stack([torch.sin(1.1 * k), torch.cos(0.9 * k + 0.2)])
    target, policy, reference = (t.view(4, 2, 3, 2, 2) for t in (target, policy, reference))
    rows = rows_of(target, torch.tensor([0.25, 0.6]).repeat(2).double(), {"chosen": [0, 1], "rejected": [2, 3]})
    likelihood = DenoisingLikelihood(FlowSchedule(), unit_dims=(2,))
    names = ["policy_chosen_segment_errors", "chosen_segment_log_ratio", "rejected_segment_log_ratio"]
    found = likelihood(names, answers(policy=policy, reference=reference), rows)
    golden = [[0.0010698244, 0.0011236277, 0.0014669499], [0.0014838256, 0.0011767089, 0.0010375021]]
    torch.testing.assert_close(found[names[0]], tensor(golden), rtol=0, atol=1e-9)
    ratios = {name: found[name] for name in names[1:]}
    labels = tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    terms = objectives.dense_dpo(**ratios, segment_label=labels, beta=500.0)
    assert (terms.losses * terms.weights).sum().item() / terms.weights.sum().item() == pytest.approx(
        0.694326604, abs=1e-9
    )


def test_segments_need_frames_and_whole_answers() -> None:
    rows = rows_of(torch.zeros(2, 4, 3, 2, 2), torch.tensor([1, 2]))
    said, banked = answers(policy=torch.zeros(2, 4, 3, 2, 2)), {"policy": {"errors": torch.zeros(2)}}
    video = DenoisingLikelihood(schedule_of("epsilon"), unit_dims=(2,))
    for likelihood, name, outputs, message in (
        (
            DenoisingLikelihood(schedule_of("epsilon")),
            "chosen_segment_mask",
            said,
            "frames of a video, which a picture",
        ),
        (video, "policy_chosen_segment_errors", banked, "segments of 'policy' need its whole answers, not a bank's"),
        (video, "chosen_segment_kl", said, "a segment of it is a point of an inverted trajectory"),
    ):
        with pytest.raises(ConfigError, match=message):
            likelihood([name], outputs, rows)
