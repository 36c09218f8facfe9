"""Mathematics of the pairwise objectives: symmetries, limits, reductions, and second implementations in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpref import objectives
from diffpref.core.errors import ConfigError
from diffpref.objectives import reward_metrics

ratios = st.floats(-30, 30)
betas = st.floats(1e-3, 10)
fast = settings(max_examples=60, deadline=None, derandomize=True)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def dpo(chosen: float, rejected: float, **options: float) -> float:
    return objectives.dpo(chosen_log_ratio=tensor(chosen), rejected_log_ratio=tensor(rejected), **options).item()


@fast
@given(ratios, ratios, betas, st.floats(0, 0.49), st.floats(0, 1))
def test_dpo_agrees_with_numpy(
    chosen: float, rejected: float, beta: float, smoothing: float, preference: float
) -> None:
    margin = np.float64(beta) * (chosen - rejected)
    probability = (1 - smoothing) * preference + smoothing * (1 - preference)
    expected = probability * np.logaddexp(0, -margin) + (1 - probability) * np.logaddexp(0, margin)
    loss = objectives.dpo(
        chosen_log_ratio=tensor(chosen),
        rejected_log_ratio=tensor(rejected),
        preference=tensor(preference),
        beta=beta,
        label_smoothing=smoothing,
    )
    assert loss.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@fast
@given(ratios, ratios, betas)
def test_swapping_the_pair_negates_the_margin(chosen: float, rejected: float, beta: float) -> None:
    difference = dpo(rejected, chosen, beta=beta) - dpo(chosen, rejected, beta=beta)
    assert difference == pytest.approx(beta * (chosen - rejected), rel=1e-9, abs=1e-9)


@fast
@given(ratios, ratios, betas, st.floats(-50, 50))
def test_a_constant_added_to_both_log_ratios_changes_nothing(a: float, b: float, beta: float, shift: float) -> None:
    assert dpo(a + shift, b + shift, beta=beta) == pytest.approx(dpo(a, b, beta=beta), rel=1e-9, abs=1e-9)


@fast
@given(ratios, ratios, betas, st.floats(0, 0.49))
def test_label_smoothing_adds_its_share_of_the_margin(a: float, b: float, beta: float, smoothing: float) -> None:
    expected = dpo(a, b, beta=beta) + smoothing * beta * (a - b)
    assert dpo(a, b, beta=beta, label_smoothing=smoothing) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@fast
@given(ratios, ratios, betas, st.floats(0.01, 100))
def test_scaling_beta_is_scaling_the_log_ratios(a: float, b: float, beta: float, factor: float) -> None:
    assert dpo(a, b, beta=beta * factor) == pytest.approx(dpo(a * factor, b * factor, beta=beta), rel=1e-9, abs=1e-9)


@fast
@given(ratios, ratios)
def test_the_loss_tends_to_ln_2_without_gradient_as_beta_vanishes(a: float, b: float) -> None:
    assert dpo(a, b, beta=1e-12) == pytest.approx(math.log(2), abs=1e-9)


def test_the_loss_is_ln_2_when_policy_equals_reference() -> None:
    zero = torch.zeros(4)
    for beta in (0.1, 5000):
        losses = objectives.dpo(chosen_log_ratio=zero, rejected_log_ratio=zero, beta=beta)
        assert torch.equal(losses, torch.full((4,), math.log(2)))


def test_preference_one_is_plain_dpo_and_zero_is_the_swapped_pair() -> None:
    chosen, rejected = tensor(0.5, -1.0), tensor(-0.8, 1.0)
    plain = objectives.dpo(chosen_log_ratio=chosen, rejected_log_ratio=rejected)
    sure = objectives.dpo(chosen_log_ratio=chosen, rejected_log_ratio=rejected, preference=tensor(1, 1))
    wrong = objectives.dpo(chosen_log_ratio=chosen, rejected_log_ratio=rejected, preference=tensor(0, 0))
    swapped = objectives.dpo(chosen_log_ratio=rejected, rejected_log_ratio=chosen)
    torch.testing.assert_close(sure, plain)
    torch.testing.assert_close(wrong, swapped)


@pytest.mark.parametrize("preference", [0.2, 0.5, 0.9])
def test_a_soft_preference_is_met_where_the_model_agrees_with_it(preference: float) -> None:
    margin = torch.tensor([math.log(preference / (1 - preference))], dtype=torch.float64, requires_grad=True)
    arguments = {"rejected_log_ratio": tensor(0), "preference": tensor(preference)}
    objectives.dpo(chosen_log_ratio=margin, beta=1.0, **arguments).backward()
    assert margin.grad is not None and abs(margin.grad.item()) < 1e-12


def test_a_direct_call_takes_the_default_beta_of_nats() -> None:
    assert dpo(0.5, -0.8) == dpo(0.5, -0.8, beta=0.1)


@fast
@given(ratios, ratios, st.floats(0.01, 10))
def test_ipo_agrees_with_numpy_and_vanishes_at_its_target(chosen: float, rejected: float, tau: float) -> None:
    def ipo(a: float, b: float) -> float:
        arguments = {"chosen_log_ratio": tensor(a), "rejected_log_ratio": tensor(b)}
        return objectives.ipo(**arguments, tau=tau, length_normalize=False).item()

    assert ipo(chosen, rejected) == pytest.approx(float(np.square(chosen - rejected - 1 / (2 * tau))), rel=1e-12)
    assert ipo(rejected + 1 / (2 * tau), rejected) == pytest.approx(0, abs=1e-20 + 1e-24 / tau**2 + 1e-24)
    assert ipo(chosen, chosen) == pytest.approx(1 / (4 * tau**2), rel=1e-12)


def test_ipo_per_token_with_equal_lengths_is_ipo_of_the_means() -> None:
    a, b, n = tensor(3.0, -2.0), tensor(1.0, 4.0), tensor(8, 8)
    per_token = objectives.ipo(chosen_log_ratio=a, rejected_log_ratio=b, chosen_length=n, rejected_length=n)
    of_means = objectives.ipo(chosen_log_ratio=a / n, rejected_log_ratio=b / n, length_normalize=False)
    torch.testing.assert_close(per_token, of_means)


def test_ipo_without_lengths_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="length_normalize=false"):
        objectives.ipo(chosen_log_ratio=tensor(1), rejected_log_ratio=tensor(0))


def test_accuracy_counts_a_tie_as_one_half() -> None:
    chosen = torch.tensor([1.0, 0.0, -1.0], requires_grad=True)
    metrics = reward_metrics(chosen_log_ratio=chosen, rejected_log_ratio=torch.zeros(3), beta=2.0)
    assert metrics["rewards/accuracies"].tolist() == [1.0, 0.5, 0.0]
    assert metrics["rewards/chosen"].tolist() == [2.0, 0.0, -2.0]
    assert metrics["rewards/rejected"].tolist() == [0.0, 0.0, 0.0]
    assert metrics["rewards/margins"].tolist() == [2.0, 0.0, -2.0]
    assert not any(tensor.requires_grad for tensor in metrics.values())


@fast
@given(ratios, ratios, st.floats(0.05, 5), st.floats(0, 1))
def test_ipo_with_a_soft_label_is_the_expectation_over_it(
    chosen: float, rejected: float, tau: float, preference: float
) -> None:
    def loss(given: float) -> float:
        return objectives.ipo(
            chosen_log_ratio=tensor(chosen),
            rejected_log_ratio=tensor(rejected),
            preference=tensor(given),
            tau=tau,
            length_normalize=False,
        ).item()

    difference = np.float64(chosen) - rejected
    first, second = (difference - 0.5 / tau) ** 2, (difference + 0.5 / tau) ** 2
    assert loss(preference) == pytest.approx(preference * first + (1 - preference) * second, rel=1e-12, abs=1e-12)
    assert loss(1.0) == pytest.approx(first) and loss(0.0) == pytest.approx(second)


def test_ipo_of_a_tie_is_least_where_the_two_are_equally_likely() -> None:
    chosen = tensor(0.7).requires_grad_()
    options = {"preference": tensor(0.5), "tau": 0.1, "length_normalize": False}
    objectives.ipo(chosen_log_ratio=chosen, rejected_log_ratio=tensor(0.7), **options).backward()
    assert chosen.grad is not None and chosen.grad.item() == 0


def test_nll_imitates_an_uncertain_choice_less() -> None:
    logps, preference = tensor(-2.0, -8.0), tensor(1.0, 0.5)
    terms = objectives.nll(policy_chosen_logps=logps, preference=preference, normalization="seq_sum")
    assert torch.equal(terms.losses, -logps) and torch.equal(terms.weights, preference)
    assert torch.equal(objectives.nll(policy_chosen_logps=logps, normalization="seq_sum"), -logps)
