"""Published formulas of scorers and of their training losses, against the official code's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref import rewards
from diffpref.rewards._dual_encoder import paired_cosine
from diffpref.rewards._hf_clip import image_embeds, text_embeds
from diffpref.rewards.pickscore import scaled

GOLDEN = Path(__file__).parents[1] / "golden" / "rewards"


def golden(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return content


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def check(found: Tensor, expected: Any) -> None:
    """To the last printed digit: ten decimals."""
    torch.testing.assert_close(found, double(expected), rtol=0, atol=0.6e-10)


@pytest.mark.parametrize(
    ("name", "cosine", "x100"),
    [
        ("clip_cosine_paired", "cosine", "cosine_x100"),
        ("hps_score", "img_score_style(cosine)", "benchmark_style(x100)"),
    ],
)
def test_cosine_of_paired_rows(name, cosine, x100):
    case = golden(name)
    found = paired_cosine(double(case["inputs"]["image_embeds"]), double(case["inputs"]["text_embeds"]))
    check(found, case["expected"][cosine])
    check(100 * found, case["expected"][x100])


def test_every_scale_of_pickscore():
    case = golden("pickscore_multi_image_one_prompt")
    cosine = paired_cosine(double(case["inputs"]["image_embeds"]), double(case["inputs"]["text_embeds"]))
    tau = double(case["params"]["logit_scale_param"]).exp().item()
    for output, key in [
        ("logit", "scores_exp_scale"),
        ("prob", "probs_softmax"),
        ("cosine", "scores_unscaled_cosine"),
        ("div26", "flow_grpo_div26"),
    ]:
        check(scaled(cosine, ["a"] * 3, logit_scale=tau, output=output), case["expected"][key])


def test_pickscore_training_loss():
    case = golden("pickscore_training_loss")
    inputs, expected = case["inputs"], case["expected"]
    given = {
        "text_features": double(inputs["text_features_raw"]),
        "first_features": double(inputs["image_0_features_raw"]),
        "second_features": double(inputs["image_1_features_raw"]),
        "preference": double(inputs["label_0"]),
        "num_examples_per_prompt": torch.tensor(inputs["num_examples_per_prompt"]),
        "logit_scale": double(case["params"]["logit_scale_param"]),
    }
    for negatives, key in [(False, "kl_weighted_sum(check)"), (True, "loss_in_batch_negatives")]:
        terms = rewards.pickscore_loss(**given, in_batch_negatives=negatives)
        total = (terms.weights * terms.losses).sum() / terms.weights.sum()
        # the official code forms the tie's log 0.5 in float32, which shows in the tenth digit
        torch.testing.assert_close(total, double(expected[key]), rtol=0, atol=0.6e-10 if not negatives else 1e-8)
    check(rewards.pickscore_loss(**given).losses, expected["per_example_kl"])


def test_hps_pair_loss():
    case = golden("hpsv2_pair_loss_sum")
    images = double(case["inputs"]["image_features_raw(first B = image 0, last B = image 1)"])
    first, second = images.chunk(2)
    labels = double(case["inputs"]["labels(2B)"])
    losses = rewards.hps_pair_loss(
        text_features=double(case["inputs"]["text_features_raw"]),
        first_features=first,
        second_features=second,
        preference=labels[: len(first)],
        logit_scale=double(case["params"]["logit_scale_param"]),
    )
    check(losses.sum(), case["expected"]["loss_sum"])
    check(losses.mean(), case["expected"]["loss_mean"])


def groups(case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The scores of each group with its own prompt, padded, and which entries are images."""
    logits, sizes = double(case["inputs"]["logits_per_image(sum_n,B)"]), case["inputs"]["num_images"]
    score, mask = double([[0.0] * max(sizes)] * len(sizes)), torch.zeros(len(sizes), max(sizes), dtype=torch.bool)
    for group, part in enumerate(logits.split(sizes)):
        score[group, : sizes[group]], mask[group, : sizes[group]] = part[:, group], True
    return score, mask


def test_hps_list_loss():
    case = golden("hpsv2_preference_loss_groups")
    score, mask = groups(case)
    best = torch.tensor(case["inputs"]["labels(best index)"])
    losses = rewards.hps_list_loss(list_score=score, list_mask=mask, best=best)
    check(losses.mean(), case["expected"]["loss"])


def test_hps_ranking_loss_as_the_official_code_computes_it():
    case = golden("hpsv2_margin_ranking_loss")
    score, mask = groups(case)
    rank = torch.full_like(score, 7)  # padding is overwritten
    rank[mask] = double(case["inputs"]["labels(rank, 1=best)"])
    losses = rewards.hps_ranking_loss(list_score=score, list_mask=mask, list_rank=rank, margin=1.0, legacy=True)
    check(losses.mean(), case["expected"]["loss"])


def test_bradley_terry_loss():
    case = golden("imagereward_pair_loss")
    chosen, rejected = double(case["inputs"]["rewards[better,worse]"]).unbind(dim=1)
    losses = rewards.bradley_terry_loss(chosen_score=chosen, rejected_score=rejected)
    check(losses, case["expected"]["per_pair"])
    check(losses.mean(), case["expected"]["loss"])


def fill(model: torch.nn.Module, is_norm: Any) -> None:
    """The golden's parameters: sines of position and of the parameter's place in the alphabet."""
    for place, (name, parameter) in enumerate(sorted(model.named_parameters())):
        if parameter.dim():
            values = torch.sin(0.7 * torch.arange(parameter.numel(), dtype=torch.float32) + 0.31 * place) * 0.2
            if name.endswith("weight") and is_norm(name):
                values = 1 + 0.1 * values
            parameter.data = values.reshape(parameter.shape)


def test_ties_and_margins_of_videoalign():
    case = golden("videoalign_losses")
    first, second = (double(case["inputs"][f"rewards_{side}"]).flatten() for side in "AB")
    label = double(case["inputs"]["chosen_label(1=A,-1=B,0=tie,22=invalid)"]).flatten()
    swapped, tie, valid = label == -1, label == 0, label != 22
    chosen, rejected = torch.where(swapped, second, first), torch.where(swapped, first, second)
    losses = rewards.rao_kupper_loss(chosen_score=chosen, rejected_score=rejected, tie=tie, theta=5.0) * valid
    check(losses.view(4, 3), case["expected"]["btt_elementwise(masked)"])
    check(losses.mean(), case["expected"]["btt"])
    decided = valid & ~tie
    for margin, key in ((0.0, "bt"), (0.57, "constant_margin")):
        plain = rewards.bradley_terry_loss(chosen_score=chosen, rejected_score=rejected, target_margin=margin)
        check((plain * decided).mean(), case["expected"][key])


def test_probabilities_of_a_win_a_loss_and_a_tie():
    case = golden("bradley_terry_with_ties_probabilities")
    gap, zero = double([case["inputs"]["reward_difference"]]), double([0.0])
    tied = torch.tensor([True])
    found = [
        rewards.rao_kupper_loss(chosen_score=gap, rejected_score=zero),
        rewards.rao_kupper_loss(chosen_score=zero, rejected_score=gap),
        rewards.rao_kupper_loss(chosen_score=gap, rejected_score=zero, tie=tied),
    ]
    probabilities = torch.cat(found).neg().exp()
    check(probabilities, [case["expected"][key] for key in ("p_win", "p_lose", "p_tie")])
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-12)


def test_the_loss_of_uncertain_scores_with_the_official_draws():
    case = golden("hpsv3_uncertainty_loss")
    given = {name: double(values) for name, values in case["inputs"].items()}
    losses = rewards.gaussian_pair_loss(
        chosen_mean=given["mu_chosen"],
        chosen_log_std=given["log_sigma_chosen"],
        rejected_mean=given["mu_rejected"],
        rejected_log_std=given["log_sigma_rejected"],
        draws=given["standard_normal_draws"],
    )
    check(losses.mean(), case["expected"]["loss"])


@torch.no_grad()
def test_a_tiny_transformers_clip_gives_the_published_pickscores():
    from transformers import CLIPConfig, CLIPModel

    case = golden("tiny_hf_clip_pickscore")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": 64, "max_position_embeddings": 12, "bos_token_id": 62, "eos_token_id": 63, "pad_token_id": 1}
    config = CLIPConfig(
        text_config={**tower, **text, "hidden_act": "gelu"},
        vision_config={**tower, "image_size": 16, "patch_size": 8, "hidden_act": "gelu"},
        projection_dim=12,
    )
    model = CLIPModel(config).eval()
    assert len(list(model.parameters())) == case["expected"]["num_params"]
    fill(model, lambda name: any(word in name for word in ("layer_norm", "layernorm", "layrnorm")))
    model.logit_scale.data.fill_(case["params"]["logit_scale_param"])
    pixels = torch.stack([torch.sin(torch.arange(768) * 0.01 * (k + 1)).reshape(3, 16, 16) for k in range(2)])
    tokens = torch.tensor(case["inputs"]["input_ids"]), torch.tensor(case["inputs"]["attention_mask"])
    cosine = paired_cosine(image_embeds(model, pixels), text_embeds(model, *tokens))
    tau = float(model.logit_scale.exp())
    expected = case["expected"]
    for output, key in [("cosine", "cosine"), ("logit", "pickscore(exp scale x cos)"), ("prob", "prob")]:
        found = scaled(cosine, ["p", "p"], logit_scale=tau, output=output)
        atol = 1e-4 if output == "cosine" else 1e-2 if output == "logit" else 1e-3  # tau multiplies the difference
        torch.testing.assert_close(found, torch.tensor(expected[key]), rtol=0, atol=atol)


@torch.no_grad()
def test_a_tiny_open_clip_gives_the_published_hps():
    import open_clip

    case = golden("tiny_openclip_hps")
    model = open_clip.model.CLIP(
        embed_dim=12,
        vision_cfg={"layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16},
        text_cfg={"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 2},
    ).eval()
    fill(model, lambda name: "ln_" in name)
    pixels = torch.stack([torch.cos(torch.arange(768) * 0.013 * (k + 1) + 0.3).reshape(3, 16, 16) for k in range(2)])
    cosine = paired_cosine(model.encode_image(pixels), model.encode_text(torch.tensor(case["inputs"]["token_ids"])))
    torch.testing.assert_close(cosine, torch.tensor(case["expected"]["hps_cosine"]), rtol=0, atol=1e-4)
