"""What a recipe may add to any objective: weights, margins, other groups; as for text and as for denoisers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from objective_cases import options_of, situations, tensor_named, tensors_of
from torch import Tensor

from diffpref import objectives
from diffpref.config import Recipe, load_recipe, save_recipe
from diffpref.core.contracts import Terms
from diffpref.core.errors import ConfigError
from diffpref.objectives import compose, reduce_sums, registry, weighting_registry
from diffpref.objectives.base import RESERVED
from diffpref.objectives.sides import sides_of
from diffpref.objectives.term import read_term

SCALES = {"tokens": 1.0, "denoising": 2e-4}
"""Log-likelihoods in nats, and of denoisers: thousands of times smaller."""
WEIGHTINGS: dict[str, dict[str, Any]] = {
    "wpo": {"clamp": False},
    "madpo": {"tau": 0.5},
    "sem_dpo": {"alpha": 0.7},
    "column": {"name": "chosen_win_rate", "power": 2.0},
    "gap": {"lowest": -1.0, "highest": 2.5},
    "margin": {"lowest": 0.0, "outside": 0.25},
    "curriculum": {"easiest": 0.3},
}
THREE = ("dpo", "ipo", "rpo")


def tensors_for(names: tuple[str, ...], likelihood: str, seed: int = 0) -> dict[str, Tensor]:
    """Return a tensor for each name, model quantities in the likelihood's scale."""
    found = {}
    for name in names:
        values = tensor_named(name, seed)
        found[name] = values * SCALES[likelihood] if "log" in name else values
    return found


def one(name: str, options: dict[str, Any], likelihood: str = "tokens") -> Any:
    return compose([(name, options)], likelihood)


def plain(name: str, options: dict[str, Any], likelihood: str, tensors: dict[str, Tensor]) -> Terms:
    return one(name, options, likelihood)(tensors)[0][2]


def ratios(chosen: list[float], rejected: list[float]) -> dict[str, Tensor]:
    return {
        "chosen_log_ratio": torch.tensor(chosen, dtype=torch.float64, requires_grad=True),
        "rejected_log_ratio": torch.tensor(rejected, dtype=torch.float64, requires_grad=True),
    }


# ---------------------------------------------------------------- weightings


def test_every_weighting_is_tried() -> None:
    assert set(WEIGHTINGS) == set(weighting_registry.names())


@pytest.mark.parametrize("likelihood", SCALES)
@pytest.mark.parametrize("objective", THREE)
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_weighting_multiplies_the_losses_of_any_objective(name: str, objective: str, likelihood: str) -> None:
    options = {"weighting": {name: WEIGHTINGS[name]}}
    composition = one(objective, options, likelihood)
    tensors = tensors_for((*composition.tensors, "chosen_length", "rejected_length"), likelihood)
    assert set(one(objective, {}, likelihood).tensors) <= set(composition.tensors)
    for tensor in tensors.values():
        tensor.requires_grad_()
    term = composition(tensors)[0][2]
    weights = term.metrics[f"{objective}/weight_{name}"]
    bare = plain(objective, {}, likelihood, tensors)
    torch.testing.assert_close(term.losses, bare.losses * weights, rtol=1e-12, atol=1e-12)
    assert not weights.requires_grad and len(set(weights.tolist())) > 1
    # no gradient through the weights: it is the weighted gradient of the bare losses
    trained = [tensors[key] for key in registry.get(objective).spec.trained]
    found = torch.autograd.grad(term.losses.sum(), trained, retain_graph=True)
    expected = torch.autograd.grad((bare.losses * weights).sum(), trained)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_a_named_method_is_its_weighting_on_dpo() -> None:
    composition = one("dpo", {"weighting": {"madpo": {"tau": 2.0}}})
    tensors = tensors_for(composition.tensors, "tokens")
    named = objectives.madpo(**tensors, tau=2.0, beta=0.1)
    torch.testing.assert_close(composition(tensors)[0][2].losses, named, rtol=1e-13, atol=1e-13)
    composition = one("dpo", {"weighting": {"sem_dpo": {"alpha": 0.5}}})
    tensors = tensors_for(composition.tensors, "tokens")
    torch.testing.assert_close(composition(tensors)[0][2].losses, objectives.sem_dpo(**tensors, alpha=0.5))


def test_several_weightings_multiply_and_normalizing_ones_divide_by_their_sum() -> None:
    sem, column = {"sem_dpo": {"alpha": 0.7}}, {"column": {"name": "chosen_win_rate", "normalize": True}}
    both = one("dpo", {"weighting": [sem, column]})
    tensors = tensors_for(both.tensors, "tokens")
    term = both(tensors)[0][2]
    first = plain("dpo", {"weighting": sem}, "tokens", tensors)
    torch.testing.assert_close(term.losses, first.losses)
    assert term.weights is not None
    torch.testing.assert_close(term.weights, tensors["chosen_win_rate"])
    ((total, weight),) = reduce_sums(both(tensors))  # type: ignore[arg-type]
    expected = (first.losses * tensors["chosen_win_rate"]).sum() / tensors["chosen_win_rate"].sum()
    torch.testing.assert_close(total / weight, expected)


def test_wpo_counts_a_pair_by_the_confidence_of_both_sides() -> None:
    """The specification's weights: confidences by token of the golden, min(1, exp(c_w + c_l))."""
    average = ([-0.4, 0.3, -0.1], [-0.2, 0.1, -0.5])
    lengths = torch.tensor([10.0, 16.0, 5.0], dtype=torch.float64)
    tensors: dict[str, Tensor] = dict(ratios([0.5, -1.0, 1.0], [-0.8, 1.0, -0.7]))
    for side, values in zip(("chosen", "rejected"), average, strict=True):
        tensors[f"policy_{side}_collision"] = -2 * lengths
        tensors[f"policy_{side}_logps"] = lengths * (torch.tensor(values, dtype=torch.float64) - 2)
        tensors[f"{side}_length"] = lengths
    term = plain("dpo", {"beta": 0.01, "weighting": "wpo"}, "tokens", tensors)
    assert term.losses.tolist() == pytest.approx([0.37685156, 0.70319718, 0.37576216], abs=5e-9)
    unbounded = plain("dpo", {"beta": 0.01, "weighting": {"wpo": {"clamp": False}}}, "tokens", tensors)
    assert unbounded.losses[1].item() == pytest.approx(0.70319718 * math.exp(0.4), abs=1e-8)


def test_madpo_amplifies_hard_pairs_and_dampens_easy_ones() -> None:
    def weights(scores: list[float], **options: float) -> list[float]:
        margins = torch.tensor(scores, dtype=torch.float64)
        columns = {"chosen_score": margins, "rejected_score": torch.zeros_like(margins)}
        term = plain("dpo", {"weighting": {"madpo": options}}, "tokens", {**ratios([0.0] * 4, [0.0] * 4), **columns})
        return (term.losses / math.log(2)).tolist()

    hard, threshold, easy, zero = weights([0.8, 2.0, 4.0, 0.0], tau=2.0)
    assert hard > 1 and easy < 1 and threshold == pytest.approx(1) and zero == pytest.approx(1)
    below, beyond, _, _ = weights([-1.5, -2.5, 0.0, 0.0], tau=2.0)
    assert below < 1 and beyond == 1
    assert weights([0.8, 2.0, 4.0, -1.0], c_min=1.0, c_max=1.0) == [1.0] * 4


def test_a_curriculum_asks_for_ever_smaller_differences() -> None:
    composition = one("dpo", {"weighting": {"curriculum": {"easiest": 1.0, "hardest": 0.0, "updates": 4}}})
    columns = {"chosen_score": torch.tensor([1.0, 0.5, 0.0]), "rejected_score": torch.zeros(3)}
    tensors = {**ratios([0.0] * 3, [0.0] * 3), **columns}
    state: Any = composition.initial_state()
    kept = []
    for _ in range(6):
        term = composition(tensors, state)[0][2]
        state = term.state
        kept.append(int((term.losses > 0).sum()))
    assert kept == [1, 1, 2, 2, 3, 3]
    assert state["0.weighting0.updates"] == 6


# ---------------------------------------------------------------- margins


@pytest.mark.parametrize("likelihood", SCALES)
@pytest.mark.parametrize("objective", THREE)
def test_a_clipped_pair_is_left_in_peace(objective: str, likelihood: str) -> None:
    """Within the clip nothing changes; beyond it the logit is the clip's and its gradient ends."""
    scale = SCALES[likelihood]
    spec = registry.get(objective).spec
    options = {"length_normalize": False} if "length_normalize" in spec.defaults else {}
    beta = getattr(options_of(spec, options, likelihood=likelihood), "beta", 1.0)
    tensors = tensors_for((*spec.tensors, "chosen_length"), likelihood)
    tensors = {key: value[:3] for key, value in tensors.items()}
    tensors |= ratios([x * scale for x in (3.0, 0.1, -3.0)], [0.0] * 3)
    limit = beta * 1.0 * scale
    clipped = plain(objective, {**options, "margin_clip": limit}, likelihood, tensors)
    assert clipped.metrics[f"{objective}/clipped"].tolist() == [1, 0, 1]
    at = {**tensors, **ratios([scale, 0.1 * scale, -scale], [0.0] * 3)}
    torch.testing.assert_close(clipped.losses, plain(objective, options, likelihood, at).losses)
    clipped.losses.sum().backward()
    gradient = tensors["chosen_log_ratio"].grad
    assert gradient is not None and (gradient != 0).tolist() == [False, True, False]


def test_a_clip_of_margins_by_length_counts_lengths() -> None:
    tensors: dict[str, Tensor] = dict(ratios([40.0, 1.0], [0.0, 0.0]))
    tensors |= {"chosen_length": torch.tensor([10.0, 10.0]), "rejected_length": torch.tensor([5.0, 5.0])}
    term = plain("ln_dpo", {"beta": 1.0, "margin_clip": 2.0}, "tokens", tensors)
    assert term.losses.tolist() == pytest.approx([math.log1p(math.exp(-2)), math.log1p(math.exp(-0.1))])


def test_the_dpop_addition_is_dpop() -> None:
    tensors = tensors_for(("chosen_log_ratio", "rejected_log_ratio"), "tokens")
    added = plain("dpo", {"beta": 0.3, "dpop": 7.0}, "tokens", tensors)
    torch.testing.assert_close(added.losses, objectives.dpop(**tensors, beta=0.3, dpop_lambda=7.0))


def test_additions_ask_a_reference_free_objective_for_a_reference() -> None:
    assert one("cpo", {}).roles == {"policy"}
    guarded = one("cpo", {"dpop": 5.0})
    assert guarded.roles == {"policy", "reference"}
    tensors = tensors_for((*guarded.tensors, "chosen_length"), "tokens")
    term = plain("cpo", {"dpop": 5.0, "nll_weight": 0.0}, "tokens", tensors)
    owed = 5.0 * torch.relu(-tensors["chosen_log_ratio"])
    moved = {**tensors, "policy_chosen_logps": tensors["policy_chosen_logps"] - owed}
    torch.testing.assert_close(term.losses, plain("cpo", {"nll_weight": 0.0}, "tokens", moved).losses)


@pytest.mark.parametrize("objective", THREE)
def test_the_safeguard_stops_the_push_where_the_winner_fell_behind(objective: str) -> None:
    spec = registry.get(objective).spec
    more = {"length_normalize": False} if "length_normalize" in spec.defaults else {}
    tensors = {key: value[:2] for key, value in tensors_for((*spec.tensors, "chosen_length"), "tokens").items()}
    gradients = []
    for options in (more, {**more, "safeguard": {"least": 0.25}}):
        pair = ratios([-0.5, 0.5], [-0.4, 0.6])
        term = plain(objective, options, "tokens", {**tensors, **pair})
        term.losses.sum().backward()
        gradients.append((term.losses.detach(), pair["chosen_log_ratio"].grad, pair["rejected_log_ratio"].grad))
    (loss, chosen, rejected), (guarded, same, damped) = gradients
    torch.testing.assert_close(guarded, loss)
    torch.testing.assert_close(same, chosen)
    assert rejected is not None and damped is not None
    torch.testing.assert_close(damped, rejected * torch.tensor([0.25, 1.0], dtype=torch.float64))


def test_the_safeguard_by_predictions_lets_the_winners_error_not_rise() -> None:
    """Shared network outputs stand for the parameters: a step along the gradient, first order."""
    chosen, rejected = (
        torch.tensor([[1.0, 2.0], [1.0, 0.0], [1.0, 0.0]]),
        torch.tensor([[2.0, 4.0], [-1.0, 1.0], [0.5, 3.0]]),
    )
    pair = ratios([0.0] * 3, [0.0] * 3)
    whole = {"policy_chosen_prediction": chosen, "policy_rejected_prediction": rejected}
    zero = {"chosen_target": torch.zeros(3, 2), "rejected_target": torch.zeros(3, 2)}
    composition = one("dpo", {"safeguard": {"by": "prediction", "mu": 0.1}}, "denoising")
    assert set(whole) | set(zero) <= set(composition.tensors)
    term = composition({**pair, **whole, **zero})[0][2]
    passed = term.metrics["dpo/safeguard"]
    assert passed.tolist() == pytest.approx([0.45, 1.0, 1.0])
    along = (chosen * chosen).sum(1) - passed * (chosen * rejected).sum(1)
    assert (along >= 0).all()


@pytest.mark.parametrize("likelihood", SCALES)
@pytest.mark.parametrize("start", [0.02, 1.0, 40.0])
def test_automatic_beta_finds_the_target_slope(likelihood: str, start: float) -> None:
    """Whatever beta starts from, the mean slope of the records' sigmoids ends at the target."""
    pair = tensors_for(("chosen_log_ratio", "rejected_log_ratio"), likelihood)
    beta = start / SCALES[likelihood]
    options = {"target_slope": 0.18, "rate": 0.5, "lowest": 1e-3, "highest": 1e3}
    composition = one("dpo", {"beta": beta, "automatic_beta": options}, likelihood)
    state: Any = composition.initial_state()
    assert state["0.automatic_beta.beta"] == beta
    for _ in range(200):
        term = composition(pair, state)[0][2]
        state = term.state
    assert term.metrics["dpo/slope"].mean().item() == pytest.approx(0.18, abs=1e-4)
    found = state["0.automatic_beta.beta"].item()
    torch.testing.assert_close(term.losses, objectives.dpo(**pair, beta=found), rtol=1e-4, atol=1e-6)
    metrics = composition.metrics(pair, state)
    torch.testing.assert_close(metrics["rewards/chosen"], found * pair["chosen_log_ratio"])


def test_automatic_beta_stays_within_its_bounds() -> None:
    composition = one("dpo", {"beta": 0.1, "automatic_beta": {"rate": 1.0, "highest": 3.0}})
    state: Any = composition.initial_state()
    for _ in range(50):
        state = composition(ratios([0.0], [0.0]), state)[0][2].state
    assert state["0.automatic_beta.beta"].item() == pytest.approx(0.3)


COMPARING = [
    name
    for name in registry.names()
    if sides_of((spec := registry.get(name).spec), options_of(spec, next(situations(spec))[1])) is not None
]


@pytest.mark.parametrize("name", COMPARING)
def test_every_objective_that_compares_takes_every_change(name: str) -> None:
    """Losses stay finite, and gradient arrives; beta becomes a tensor without harm."""
    spec = registry.get(name).spec
    optional, options = next(situations(spec))
    changes: dict[str, Any] = {"margin_clip": 5.0, "dpop": 1.0, "safeguard": True}
    if isinstance(getattr(options_of(spec, options), "beta", None), float):
        changes["automatic_beta"] = True
    term = read_term(spec, {**options, **changes}, "tokens", name)
    tensors = {**tensors_of(spec, optional=optional), "chosen_log_ratio": tensor_named("chosen_log_ratio")}
    for key in spec.trained:
        tensors[key].requires_grad_()
    terms = term(tensors, term.initial_state())
    terms.losses.sum().backward()
    assert terms.losses.isfinite().all()
    assert any(tensors[key].grad is not None for key in spec.trained)
    assert {f"{name}/{what}" for what in ("clipped", "dpop", "safeguard")} <= set(terms.metrics)


# ---------------------------------------------------------------- groups, regularisers, recipes


def test_other_groups_may_take_part() -> None:
    composition = compose(
        [("dpo", {"groups": {"rejected": "mismatched"}}), ("kl_penalty", {"coefficient": 0.1})], "tokens"
    )
    assert composition.tensors == ("chosen_log_ratio", "mismatched_log_ratio", "chosen_kl")
    assert composition.groups == {"chosen", "mismatched"}
    tensors = {name: tensor_named(name) for name in (*composition.tensors, "rejected_log_ratio")}
    losses = composition(tensors)[0][2].losses
    pair = {"chosen_log_ratio": tensors["chosen_log_ratio"], "rejected_log_ratio": tensors["mismatched_log_ratio"]}
    torch.testing.assert_close(losses, objectives.dpo(**pair))


def test_a_regulariser_may_look_at_any_group() -> None:
    composition = compose([("nll", {"groups": {"chosen": "gold"}}), ("kl_penalty", {"groups": {"chosen": "rejected"}})])
    assert composition.tensors == ("policy_gold_logps", "rejected_kl")
    assert composition.optional == ("preference", "gold_length")
    tensors = {name: tensor_named(name) for name in composition.tensors}
    nll, kl = composition(tensors)
    torch.testing.assert_close(nll[2].losses, -tensors["policy_gold_logps"])
    torch.testing.assert_close(kl[2].losses, tensors["rejected_kl"])


def test_the_mixture_of_trl_is_a_list_with_coefficients() -> None:
    """TRL's MPO: loss_type [sigmoid, bco_pair, sft] with loss_weights [0.8, 0.2, 1.0], each term's mean."""
    mpo = compose(
        [
            ("sigmoid", {"beta": 0.01, "coefficient": 0.8}),
            ("bco_pair", {"beta": 0.01, "coefficient": 0.2}),
            ("sft", {"coefficient": 1.0}),
        ],
        "tokens",
    )
    tensors: dict[str, Tensor] = dict(ratios([0.5, -1.0, 1.0], [-0.8, 1.0, -0.7]))
    tensors["policy_chosen_logps"] = torch.tensor([-12.5, -20.0, -8.0], dtype=torch.float64)
    tensors["chosen_length"] = torch.tensor([10.0, 16.0, 5.0], dtype=torch.float64)
    terms = mpo(tensors)
    parts = [factor * (s / w).item() for (factor, _, _), (s, w) in zip(terms, reduce_sums(terms), strict=True)]
    # TRL's own numbers for each: sigmoid within rpo (0.69804852 less 0.005 x 40.5 / 31), bco_pair, the mean token.
    assert parts == pytest.approx([0.8 * 0.69151626, 0.2 * 1.38464594, 40.5 / 31], abs=2e-8)


def test_effective_options_of_additions_compose_to_the_same_again() -> None:
    first = compose(
        [
            ("dpo", {"weighting": ["sem_dpo", {"madpo": {"tau": "2"}}], "margin_clip": 5, "automatic_beta": True}),
            ("nll", {"coefficient": 0.5, "groups": {"chosen": "gold"}}),
        ]
    )
    effective = first.effective_options
    assert effective[0]["dpo"]["weighting"][1] == {
        "madpo": {"c_min": 0.5, "c_max": 2.0, "steepness": 1.0, "tau": 2.0, "normalize": False}
    }
    assert effective[0]["dpo"]["automatic_beta"]["target_slope"] == 0.2
    again = compose([(name, options) for term in effective for name, options in term.items()])
    assert again.effective_options == effective and again.tensors == first.tensors


def test_a_recipe_with_additions_is_read_back_as_it_was_written(tmp_path: Any) -> None:
    objective = [
        {"dpo": {"beta": 0.1, "weighting": {"madpo": {"tau": 2.0}}, "margin_clip": 5.0}},
        {"nll": {"coefficient": 0.5}},
    ]
    recipe = load_recipe("sdxl/diffusion_dpo", {"objective": objective, "output": "x"})
    save_recipe(recipe, tmp_path / "config.yaml")
    again = load_recipe(tmp_path / "config.yaml")
    assert isinstance(again, Recipe) and again == recipe
    composed = compose([(named.name, named.options) for named in again.objective or ()])
    assert composed.effective_options[0]["dpo"]["margin_clip"] == 5.0
    assert {"chosen_score", "rejected_score"} <= set(composed.tensors)


def test_every_mistake_in_an_addition_is_named_with_its_path() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(
            [
                ("dpo", {"weighting": "madpoo", "margin_clip": 0, "automatic_beta": {"target_slope": 0.3}}),
                ("dpo", {"weighting": [{"madpo": {"tua": 1}}, {"column": {"name": "chosen_scoer"}}, 3]}),
                ("nll", {"margin_clip": 1.0}),
                ("ipo", {"automatic_beta": True}),
                ("dpo", {"groups": {"chosen": "golden", "list": "gold"}}),
                ("dpo", {"safeguard": {"by": "vibes"}}),
            ]
        )
    lines = str(caught.value).splitlines()
    starts = [
        "objective[0].dpo.weighting: unknown weighting 'madpoo'; did you mean 'madpo'?",
        "objective[0].dpo.automatic_beta.target_slope: must be < 0.25, got 0.3",
        "objective[0].dpo.margin_clip: must be > 0, got 0",
        "objective[1].dpo.weighting[0].madpo.tua: unknown option; did you mean 'tau'?",
        "objective[1].dpo.weighting[1].column.name: tensor name 'chosen_scoer': unknown quantity 'scoer'",
        "objective[1].dpo.weighting[2]: must be a name or {name: {option: value}}, got 3",
        "objective[2].nll.margin_clip: 'nll' compares no chosen with a rejected sample by their likelihoods",
        "objective[3].ipo.automatic_beta: 'ipo' has no option beta; leave it out",
        "objective[4].dpo.groups.chosen: unknown group 'golden'; did you mean 'gold'?",
        "objective[4].dpo.groups.list: 'dpo' has no such group; it has chosen, rejected",
        "objective[5].dpo.safeguard.by: must be",
    ]
    assert [line for line, start in zip(lines, starts, strict=True) if not line.startswith(start)] == []


def test_a_missing_tensor_of_an_addition_is_named() -> None:
    with pytest.raises(ConfigError, match="weighting 'sem_dpo' needs chosen_similarity"):
        plain("dpo", {"weighting": "sem_dpo"}, "tokens", dict(ratios([0.0], [0.0])))
    with pytest.raises(ConfigError, match="weighting 'column' needs chosen_score"):
        plain("dpo", {"weighting": {"column": {"name": "chosen_score"}}}, "tokens", dict(ratios([0.0], [0.0])))


def test_no_objective_may_take_the_name_of_an_addition() -> None:
    def greedy(*, chosen_log_ratio: Tensor, margin_clip: float = 1.0) -> Tensor:
        return chosen_log_ratio * margin_clip

    with pytest.raises(ConfigError, match="margin_clip are those of every term"):
        objectives.objective("toy_greedy", kind="pairwise", source="ours", evidence="ours")(greedy)
    spec = registry.get("dpo").spec
    assert {
        *read_term(spec, {"margin_clip": 1.0, "dpop": 1.0, "safeguard": True}, "tokens", "x").effective
    } & RESERVED == {
        "coefficient",
        "margin_clip",
        "dpop",
        "safeguard",
    }
