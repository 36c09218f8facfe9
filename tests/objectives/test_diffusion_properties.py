"""What the diffusion and step objectives promise beyond their numbers: constants, symmetries, where no gradient is."""

from __future__ import annotations

import math

import pytest
import torch
from objective_cases import tensor_named, tensors_of
from torch import Tensor

from diffpref import objectives
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.core.vocabulary import parse, required_roles
from diffpref.objectives import registry

LN2 = math.log(2)
LOGISTIC = ("ddim_inpo", "dcpo", "tango2", "flow_dpo", "vdpo", "video_dpo_omniscore", "align_anything", "spo", "d3po")
AT_REFERENCE = {
    **dict.fromkeys((*LOGISTIC, "lpo", "seppo", "bdhs", "inversion_dpo", "dense_dpo"), LN2),
    "smpo_diffusion": LN2,
    "diffusion_dpo_hinge": 1.0,
    "diffusion_dpo_ipo": 1 / (4 * 0.1**2),
    "diffusion_dro": 0.001,
    "opa_dpo": 4.4 * LN2,
}


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def losses(name: str, tensors: dict[str, Tensor], **options: object) -> Tensor:
    value = registry.get(name)(**tensors, **options)
    return value if isinstance(value, Tensor) else value.losses


@pytest.mark.parametrize("name", AT_REFERENCE)
def test_the_loss_is_a_constant_where_policy_equals_reference(name: str) -> None:
    spec = registry.get(name).spec
    tensors = tensors_of(spec)
    for key, values in tensors.items():
        tensors[key] = 0 * values if parse(key).quantity in ("log_ratio", "kl") else torch.ones_like(values)
    if name == "smpo_diffusion":
        tensors |= {"chosen_score": tensors["chosen_log_ratio"] + 0.2, "rejected_score": tensors["chosen_log_ratio"]}
    expected = torch.full((5,), AT_REFERENCE[name], dtype=torch.float64)
    torch.testing.assert_close(losses(name, tensors), expected)


@pytest.mark.parametrize("name", LOGISTIC)
def test_swapping_the_sides_negates_the_margin(name: str) -> None:
    beta = {"beta_coeff": 0.05} if name == "align_anything" else {"beta": 0.1}
    a, b = tensor(0.04, -0.03), tensor(-0.02, 0.05)
    one = losses(name, {"chosen_log_ratio": a, "rejected_log_ratio": b}, **beta)
    other = losses(name, {"chosen_log_ratio": b, "rejected_log_ratio": a}, **beta)
    torch.testing.assert_close(other - one, 0.1 * (a - b))


@pytest.mark.parametrize("name", LOGISTIC)
def test_a_vanishing_beta_gives_ln_2_and_a_huge_one_the_margin(name: str) -> None:
    option = "beta_coeff" if name == "align_anything" else "beta"
    pair = {"chosen_log_ratio": tensor(0.04, -0.03), "rejected_log_ratio": tensor(-0.02, 0.05)}
    torch.testing.assert_close(losses(name, pair, **{option: 1e-12}), tensor(LN2, LN2))
    beta = 1e9
    huge = losses(name, pair, **{option: beta / 2 if option == "beta_coeff" else beta})
    torch.testing.assert_close(huge, tensor(0.0, 0.08 * beta))


def test_each_side_may_be_back_propagated_alone_with_the_margin_s_coefficient() -> None:
    """Two forward passes in the memory of one: the coefficients come from a pass without gradient."""
    beta, errors = 500.0, {side: tensor(0.2, 0.3, 0.1).requires_grad_() for side in ("chosen", "rejected")}
    reference = tensor(0.21, 0.29, 0.1)
    ratios = {f"{side}_log_ratio": -0.5 * (error - reference) for side, error in errors.items()}
    ratios["chosen_log_ratio"] = ratios["chosen_log_ratio"] + 1e-3
    objectives.flow_dpo(**ratios, beta=beta).mean().backward()
    margin = beta * (ratios["chosen_log_ratio"] - ratios["rejected_log_ratio"]).detach()
    coefficient = 0.5 * beta * (-margin).sigmoid() / len(margin)
    for sign, side in ((1, "chosen"), (-1, "rejected")):
        joint = errors[side].grad
        errors[side].grad = None
        (sign * coefficient * errors[side]).sum().backward()
        torch.testing.assert_close(errors[side].grad, joint)


def test_rank_dpo_lifts_the_best_lowers_the_worst_and_moves_nothing_on_the_whole() -> None:
    ratios = tensor_named("list_log_ratio").requires_grad_()
    scores = tensor_named("list_scores").sigmoid()
    objectives.rank_dpo(list_log_ratio=ratios, list_scores=scores).sum().backward()
    gradient = ratios.grad
    torch.testing.assert_close(gradient.sum(1), torch.zeros(5, dtype=torch.float64))
    assert (gradient.gather(1, scores.argmax(1, keepdim=True)) < 0).all()
    assert (gradient.gather(1, scores.argmin(1, keepdim=True)) > 0).all()


def test_rank_dpo_of_a_masked_list_is_that_of_the_shorter_one() -> None:
    ratios, scores, mask = tensor_named("list_log_ratio"), tensor_named("list_scores").sigmoid(), torch.ones(5, 4)
    mask[:, 2] = 0
    left = [0, 1, 3]
    for options in ({}, {"rank_source": "predicted"}, {"pair_norm": "mean"}, {"labels": "win_shares"}):
        torch.testing.assert_close(
            objectives.rank_dpo(list_log_ratio=ratios, list_scores=scores, list_mask=mask, **options),
            objectives.rank_dpo(list_log_ratio=ratios[:, left], list_scores=scores[:, left], **options),
        )


def test_rank_dpo_refuses_scores_of_an_open_scale_and_lists_of_one() -> None:
    with pytest.raises(ConfigError, match=r"list_scores must lie in \[0, 1\], got 20 to 22; set labels: win_shares"):
        objectives.rank_dpo(list_log_ratio=torch.zeros(1, 2), list_scores=torch.tensor([[20.0, 22.0]]))
    with pytest.raises(ShapeError, match="a list compares at least 2"):
        objectives.rank_dpo(list_log_ratio=torch.zeros(1, 1), list_scores=torch.ones(1, 1))


def test_dense_dpo_of_ties_alone_is_a_zero_that_hangs_on_the_graph() -> None:
    ratios = {f"{side}_segment_log_ratio": tensor(0.3, -0.2)[None].requires_grad_() for side in ("chosen", "rejected")}
    for reduction in ("frame_mean", "per_video_mean", "sum_inside", "mean_inside"):
        terms = objectives.dense_dpo(**ratios, segment_label=torch.zeros(1, 2), reduction=reduction)
        assert terms.losses.item() == 0 and terms.weights.item() == 0
        terms.losses.sum().backward()
        assert all((t.grad == 0).all() for t in ratios.values())


def test_dense_dpo_averaged_a_video_is_never_below_its_mean_inside() -> None:
    tensors = tensors_of(registry.get("dense_dpo").spec, seed=4)
    inside = objectives.dense_dpo(**tensors, reduction="mean_inside").losses
    assert (objectives.dense_dpo(**tensors, reduction="per_video_mean").losses >= inside - 1e-12).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_diffusion_nft_moves_towards_or_away_from_a_sample_by_its_share(share: float) -> None:
    """Where policy and sampler agree the gradient is 2 r - 1 times one vector, whatever beta; at 1/2 it vanishes."""
    gradients = []
    for beta in (0.1, 1.0):
        v = tensor_named("policy_prediction").requires_grad_()
        objectives.diffusion_nft(
            policy_prediction=v,
            behaviour_prediction=v.detach(),
            reference_prediction=v.detach(),
            target=tensor_named("target"),
            timesteps=torch.full((5,), 0.4),
            advantage=torch.full((5,), 10 * (share - 0.5)),
            beta=beta,
        ).sum().backward()
        gradients.append(v.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    t, error = 0.4, tensor_named("target") - tensor_named("policy_prediction")
    size = (t * error).abs().flatten(1).mean(1).view(-1, 1, 1, 1)
    vector = -2 * 5.0 * t**2 * error / size / error[0].numel()
    torch.testing.assert_close(gradients[1], (2 * share - 1) * vector)


@pytest.mark.parametrize("name", ["spo", "d3po", "lpo"])
def test_a_step_beyond_the_trust_region_has_no_gradient(name: str) -> None:
    chosen, rejected = tensor(0.05, 0.2).requires_grad_(), tensor(-0.05, -0.2).requires_grad_()
    losses(name, {"chosen_log_ratio": chosen, "rejected_log_ratio": rejected}, beta=1.0).sum().backward()
    assert [bool(g) for g in chosen.grad] == [bool(g) for g in rejected.grad] == [True, False]


def test_a_clipped_sample_of_diffusion_dro_has_no_gradient() -> None:
    gold = tensor(0.1, 0.1).requires_grad_()
    objectives.diffusion_dro(gold_log_ratio=gold, online_log_ratio=tensor(0.05, 0.2)).sum().backward()
    assert gold.grad.tolist() == [0.0, -2.0]


def test_an_exact_copy_learns_nothing_from_inversion_dpo() -> None:
    prediction = tensor_named("policy_prediction").requires_grad_()
    kl = (prediction - prediction.detach()).square().flatten(1)
    objectives.inversion_dpo(chosen_segment_kl=kl, rejected_segment_kl=0.5 * kl).sum().backward()
    assert (prediction.grad == 0).all()


def test_the_script_of_opa_dpo_starts_at_6_4_ln_2_and_pads_shorter_answers() -> None:
    spec = registry.get("opa_dpo").spec
    tensors = {key: 0 * t if parse(key).quantity == "log_ratio" else t for key, t in tensors_of(spec).items()}
    torch.testing.assert_close(
        objectives.opa_dpo(**tensors, opa_mode="official_script"), torch.full((5,), 6.4 * LN2, dtype=torch.float64)
    )


@pytest.mark.parametrize("name", ["mapo", "curated_retraining", "ddpo", "mixgrpo", "refl", "alignprop", "draft"])
def test_no_reference_is_asked_for(name: str) -> None:
    assert "reference" not in required_roles(registry.get(name).spec.tensors)


def test_mapo_stays_finite_for_any_error() -> None:
    logps = tensor(0.0, -1e-9, -1.0, -1e4).requires_grad_()
    objectives.mapo(policy_chosen_logps=logps, policy_rejected_logps=tensor(-1e4, -1.0, -1e-9, 0.0)).sum().backward()
    assert logps.grad.isfinite().all() and (logps.grad < 0).all()


@pytest.mark.parametrize("source", ["scores", "preference", "beta_scale"])
def test_smpo_says_which_columns_it_misses(source: str) -> None:
    with pytest.raises(ConfigError, match=f"weight_from '{source}' needs"):
        objectives.smpo_diffusion(chosen_log_ratio=tensor(1), rejected_log_ratio=tensor(0), weight_from=source)


@pytest.mark.parametrize("timesteps", [None, tensor(750.0), tensor(-0.1)])
def test_flow_dpo_refuses_timesteps_of_another_schedule(timesteps: Tensor | None) -> None:
    pair = {"chosen_log_ratio": tensor(1), "rejected_log_ratio": tensor(0)}
    with pytest.raises(ConfigError, match=r"needs timesteps in \[0, 1\]"):
        objectives.flow_dpo(**pair, timesteps=timesteps, beta_schedule="one_minus_t_sq")


@pytest.mark.parametrize("name", ["dspo", "diffusion_nft", "video_dpo_omniscore_script"])
def test_predictions_of_other_shapes_are_refused(name: str) -> None:
    tensors = tensors_of(registry.get(name).spec)
    key = next(k for k in tensors if k.endswith("target"))
    with pytest.raises(ShapeError, match="they must be equal"):
        losses(name, {**tensors, key: tensors[key][..., :1]})


def test_only_an_objective_that_learns_by_its_logit_alone_is_watched_for_a_tiny_one() -> None:
    assert objectives.compose([("dcpo", {})]).pair_beta == 500.0
    assert objectives.compose([("dspo", {})]).pair_beta is None
    metrics = objectives.compose([("dspo", {})]).metrics(tensors_of(registry.get("dspo").spec))
    assert "rewards/accuracies" in metrics


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("diffusion_dpo", "dpo"),
        ("ppd", "dpo"),
        ("balanced_dpo", "dpo"),
        ("inpo", "ddim_inpo"),
        ("smpo", "smpo_diffusion"),
        ("video_dpo", "flow_dpo"),
        ("structural_dpo", "flow_dpo"),
        ("edit_dpo", "flow_dpo"),
        ("curriculum_dpo", "tango2"),
        ("pami_vdpo", "vdpo"),
        ("dance_grpo", "mixgrpo"),
    ],
)
def test_papers_with_one_loss_are_one_objective(alias: str, name: str) -> None:
    assert registry.canonical(alias) == name
