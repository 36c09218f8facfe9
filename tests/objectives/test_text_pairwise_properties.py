"""What the papers say of the core losses beyond their formulas: values at zero, symmetries, optima, limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.core.contracts import Terms
from diffpref.core.errors import ConfigError
from diffpref.core.vocabulary import parse
from diffpref.objectives import compose, registry

LN2 = math.log(2)
SUMS = {"length_normalize": False}


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def losses(name: str, *sides: Tensor, **options: Any) -> Tensor:
    """The losses of a pair, whatever the objective calls its two sides."""
    spec = registry.get(name).spec
    value = registry.get(name)(**dict(zip(pair(name), sides, strict=True)), **options)
    assert spec.kind == "pairwise"
    return value.losses if isinstance(value, Terms) else value


def pair(name: str) -> list[str]:
    return [tensor for tensor in registry.get(name).spec.trained if parse(tensor).group in ("chosen", "rejected")][:2]


def slopes(name: str, chosen: float, rejected: float, **options: Any) -> tuple[float, float]:
    sides = [tensor(chosen).requires_grad_(), tensor(rejected).requires_grad_()]
    losses(name, *sides, **options).sum().backward()
    return tuple(side.grad.item() for side in sides)  # type: ignore[union-attr, return-value]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dpo", {}, LN2),
        ("cdpo", {}, LN2),
        ("rdpo", {}, LN2),
        ("ln_dpo", SUMS, LN2),
        ("f_dpo", {"divergence": "reverse_kl"}, LN2),
        ("f_dpo", {"divergence": "forward_kl"}, LN2),
        ("f_dpo", {"divergence": "js"}, LN2),
        ("f_dpo", {"divergence": "alpha"}, LN2),
        ("dpop", {}, LN2),
        ("aot_unpaired", {}, LN2),
        ("rso_sigmoid_norm", {}, LN2),
        ("rso", {}, 1.0),
        ("rso_hinge", {}, 1.0),
        ("ipo", {**SUMS, "tau": 0.2}, 1 / (4 * 0.2**2)),
        ("nca_pair", {}, 2 * LN2),
        ("bco_pair", {}, 2 * LN2),
        ("bco_pair_running", {}, 2 * LN2),
        ("apo_zero", {}, 1.0),
        ("apo_down", {}, 1.0),
        ("kto_pair", {}, 0.5),
        ("discopop", {}, (LN2 + 1) / 2),
        ("exo_pair", {}, 0.5 * math.log(0.5 / 0.999) + 0.5 * math.log(0.5 / 0.001)),
        ("sppo_hard", {"beta": 0.1}, 0.5 / 0.1**2),
        ("simpo", {**SUMS, "beta": 2.0, "gamma_beta_ratio": 0.5}, math.log1p(math.e)),
        ("alphapo", {**SUMS, "gamma": 1.0}, math.log1p(math.e)),
    ],
)
def test_the_loss_where_policy_and_reference_agree(name: str, options: dict[str, Any], expected: float) -> None:
    assert losses(name, tensor(0.0), tensor(0.0), **options).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired"])
def test_a_sample_at_the_reference_point_costs_half_its_weight(name: str, label: float) -> None:
    function = registry.get(name)
    extra = {"mismatched_log_ratio": tensor(-0.5, -1.5)} if name == "kto" else {}
    loss = function(log_ratio=tensor(0.0, 0.0), label=tensor(label, label), undesirable_weight=1.33, **extra)
    assert loss.tolist() == pytest.approx([0.5 if label else 0.665] * 2)


OF_A_DIFFERENCE = ["dpo", "cdpo", "rdpo", "rso", "rso_sigmoid_norm", "rso_hinge", "exo_pair", "discopop"]


@pytest.mark.parametrize("name", OF_A_DIFFERENCE)
def test_losses_of_a_difference_see_nothing_else(name: str) -> None:
    """Exchanging the sides negates the margin, and a constant added to both changes nothing."""
    chosen, rejected = tensor(0.5, -1.0, 1.0), tensor(-0.8, 1.0, -0.7)
    torch.testing.assert_close(losses(name, rejected, chosen), losses(name, -chosen, -rejected))
    torch.testing.assert_close(losses(name, chosen + 3, rejected + 3), losses(name, chosen, rejected))
    torch.testing.assert_close(losses(name, rejected, chosen), losses(name, chosen - chosen, chosen - rejected))


@pytest.mark.parametrize("name", ["nca_pair", "bco_pair", "apo_zero", "sppo_hard", "apo_down", "dpop"])
def test_anchored_losses_see_a_constant_added_to_both_sides(name: str) -> None:
    chosen, rejected = tensor(-0.5), tensor(-0.8)
    assert (losses(name, chosen + 9, rejected + 9) - losses(name, chosen, rejected)).abs().item() > 1e-4


@pytest.mark.parametrize("margin", [1e3, -1e3])
@pytest.mark.parametrize("name", [*OF_A_DIFFERENCE, "dpop", "nca_pair", "bco_pair", "apo_zero", "apo_down", "f_dpo"])
def test_gradients_are_finite_at_margins_of_a_thousand(name: str, margin: float) -> None:
    beta = registry.get(name).spec.options().beta
    sides = [torch.tensor([margin / beta / 2 * sign]).requires_grad_() for sign in (1.0, -1.0)]
    losses(name, *sides).sum().backward()
    assert all(side.grad is not None and side.grad.isfinite().all() for side in sides)


@pytest.mark.parametrize("smoothing", [0.001, 0.1, 0.3])
def test_exo_and_dpo_agree_on_the_margin_of_doubtful_labels(smoothing: float) -> None:
    optimum = math.log((1 - smoothing) / smoothing)
    for name in ("cdpo", "exo_pair"):
        assert slopes(name, optimum, 0.0, beta=1.0, label_smoothing=smoothing) == pytest.approx((0, 0), abs=1e-12)
    assert losses("exo_pair", tensor(optimum), tensor(0.0), beta=1.0, label_smoothing=smoothing).abs().item() < 1e-12


def test_exo_gives_up_on_pairs_ordered_wrongly_by_far_and_dpo_does_not() -> None:
    assert abs(slopes("exo_pair", -50.0, 0.0, beta=1.0)[0]) < 1e-15
    assert slopes("dpo", -50.0, 0.0, beta=1.0)[0] == pytest.approx(-1.0)


def test_nca_draws_the_chosen_reward_to_ln_2() -> None:
    assert slopes("nca_pair", LN2, 0.0, beta=1.0)[0] == pytest.approx(0, abs=1e-15)
    assert slopes("nca_pair", LN2 - 0.1, 0.0, beta=1.0)[0] < 0 < slopes("nca_pair", LN2 + 0.1, 0.0, beta=1.0)[0]


def test_dpop_pushes_up_a_chosen_sample_that_became_unlikely() -> None:
    chosen, rejected = slopes("dpop", -0.1, 0.2, beta=0.1, dpop_lambda=5.0)
    assert chosen == pytest.approx(-6 * rejected)
    chosen, rejected = slopes("dpop", 0.1, 0.2, beta=0.1, dpop_lambda=5.0)
    assert chosen == pytest.approx(-rejected)


def test_apo_zero_raises_the_chosen_sample_and_apo_down_lowers_it_where_the_pair_is_told_apart() -> None:
    assert slopes("apo_zero", 0.0, 0.0)[0] < 0 < slopes("apo_zero", 0.0, 0.0)[1]
    assert slopes("apo_down", 5.0, -60.0)[0] > 0 and slopes("apo_down", 5.0, -60.0)[1] > 0


def test_rdpo_falls_below_zero_and_without_bound() -> None:
    loss = losses("rdpo", tensor(100.0, 1000.0), tensor(0.0, 0.0), beta=1.0, label_smoothing=0.1)
    torch.testing.assert_close(loss, tensor(-12.5, -125.0))


def test_discopop_is_not_monotone() -> None:
    values = losses("discopop", tensor(-2.0, -1.0, 0.0, 1.0, 2.0), torch.zeros(5, dtype=torch.float64)).tolist()
    assert values[0] < values[1] < values[2] and max(values) > values[4]


@pytest.mark.parametrize("name", ["slic_hf", "rso", "rso_hinge"])
def test_a_hinge_is_flat_beyond_its_margin(name: str) -> None:
    options = {"delta": 1.0, "nll_weight": 0.0} if name == "slic_hf" else {"beta": 1.0}
    assert slopes(name, 0.0, -1.5, **options) == (0, 0)
    assert slopes(name, 0.0, -0.5, **options) == (-1, 1)


@pytest.mark.parametrize(
    ("divergence", "slope", "bound"),
    [("reverse_kl", 1.0, None), ("forward_kl", 1.0, 1.0), ("js", 0.5, LN2), ("alpha", 1.0, 1 / 0.3)],
)
def test_scores_of_divergences(divergence: str, slope: float, bound: float | None) -> None:
    """The slope of a score is told by the loss's at 0, which is -beta/2 times it; its bound by the largest margin."""
    options = {"divergence": divergence, "alpha": 0.3, "beta": 1.0}
    assert slopes("f_dpo", 0.0, 0.0, **options) == pytest.approx((-slope / 2, slope / 2))
    if bound is not None:
        loss = losses("f_dpo", tensor(700.0), tensor(0.0), **options).item()
        assert loss == pytest.approx(math.log1p(math.exp(-bound)))


@pytest.mark.parametrize(("alpha", "other"), [(1.0, "forward_kl"), (1e-9, "reverse_kl")])
def test_the_alpha_divergence_lies_between_the_two_kl(alpha: float, other: str) -> None:
    sides = tensor(0.5, -1.0, 1.0), tensor(-0.8, 1.0, -0.7)
    bent = losses("f_dpo", *sides, divergence="alpha", alpha=alpha)
    torch.testing.assert_close(bent, losses("f_dpo", *sides, divergence=other), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["dpo", "nca_pair", "bco_pair", "kto", "apo_zero", "aot", "sppo_hard", "exo_pair"])
def test_only_f_dpo_has_a_divergence_to_choose(name: str) -> None:
    with pytest.raises(ConfigError, match=r"divergence: unknown option"):
        compose([(name, {"divergence": "js"})])


def test_aot_matches_distributions_and_not_pairs() -> None:
    order, other = torch.tensor([2, 0, 1]), torch.tensor([1, 2, 0])
    chosen, rejected = tensor(0.5, -1.0, 1.0), tensor(-0.8, 1.0, -0.7)
    expected = losses("aot_unpaired", chosen, rejected)
    torch.testing.assert_close(losses("aot_unpaired", chosen[order], rejected[other]), expected)
    aot, policy, reference = registry.get("aot"), tensor(1.5, -1.4, 1.3), tensor(0.2, 0.5, -0.2)
    zero = torch.zeros_like(policy)

    def of(margins: Tensor, anchors: Tensor) -> Any:
        sides = {"policy_rejected_logps": zero, "reference_rejected_logps": zero}
        return aot(policy_chosen_logps=margins, reference_chosen_logps=anchors, **sides)

    torch.testing.assert_close(of(policy[order], reference[other]), of(policy, reference))


def test_the_gradient_of_aot_on_the_documented_batch() -> None:
    """Two of its margins are equal, so that only the sum of their gradients is defined: -0.001657 is their mean."""
    chosen, rejected = tensor(-12.5, -20, -8).requires_grad_(), tensor(-14, -18.5, -9.5)
    anchors = {"reference_chosen_logps": tensor(-13, -19, -9), "reference_rejected_logps": tensor(-13.2, -19.5, -8.8)}
    loss = registry.get("aot")(policy_chosen_logps=chosen, policy_rejected_logps=rejected, **anchors)
    loss.mean().backward()  # type: ignore[union-attr]
    assert chosen.grad is not None
    assert (chosen.grad[0] + chosen.grad[2]).item() / 2 == pytest.approx(-0.001657, abs=5e-7)
    assert chosen.grad[1].item() == pytest.approx(-0.001677, abs=5e-7)


def test_the_shift_of_bco_is_the_mean_of_all_rewards_so_far() -> None:
    bco, state, seen = registry.get("bco"), None, []
    for batch in (tensor(0.5, 1.0), tensor(-3.0), tensor(2.0, 0.1, -0.4)):
        terms = bco(
            log_ratio=batch, label=(batch > 0).double(), beta=0.5, **({} if state is None else {"state": state})
        )
        assert isinstance(terms, Terms) and terms.state is not None
        state = terms.state
        seen.append(0.5 * batch)
        assert state["mean"].item() == pytest.approx(torch.cat(seen).mean().item())
        assert state["count"].item() == len(torch.cat(seen))


@pytest.mark.parametrize("name", ["orpo", "asft"])
def test_certain_responses_have_finite_odds(name: str) -> None:
    options = {**SUMS, **({"nll": "seq_sum"} if name == "orpo" else {})}
    assert losses(name, tensor(0.0), tensor(0.0), **options).isfinite().all()
    assert losses(name, tensor(-1e-9), tensor(-1.0), **options).isfinite().all()


def test_the_rejected_response_of_asft_stops_mattering() -> None:
    assert slopes("asft", -1.0, -40.0, **SUMS)[1] == pytest.approx(0, abs=1e-15)
    assert slopes("asft", -1.0, -1.0, **SUMS)[1] == pytest.approx(0.1 / (math.e - 1))


@pytest.mark.parametrize("name", ["ipo", "ln_dpo", "simpo", "alphapo", "orpo", "asft"])
def test_missing_lengths_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: length_normalize needs the columns chosen_length and"):
        losses(name, tensor(-1.0), tensor(-2.0))


@pytest.mark.parametrize(
    ("name", "option"), [("cpo", "nll"), ("orpo", "nll"), ("rpo", "nll"), ("nll", "normalization")]
)
@pytest.mark.parametrize("value", ["token_mean_batch", "token_mean_seq"])
def test_missing_lengths_of_an_imitation_are_named(name: str, option: str, value: str) -> None:
    spec = registry.get(name).spec
    options = {option: value, **(SUMS if "length_normalize" in spec.defaults else {})}
    with pytest.raises(ConfigError, match=rf"{name}: {option}={value} needs the column chosen_length; set {option}="):
        registry.get(name)(**{key: tensor(-1.0) for key in spec.tensors}, **options)
