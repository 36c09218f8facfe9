"""ImageReward: the official code's numbers, a second implementation, the published layout and preprocessing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reward_cases import pictures, sentences
from safetensors.torch import load_file, save_file
from tiny_blip import CONFIG, SIDE, VISION, WIDTH, blip_state, save_blip, shapes
from torch import Tensor

from diffpref import rewards
from diffpref.core.errors import ModelError
from diffpref.rewards._blip import Blip, BlipSizes, affine
from diffpref.rewards._blip_reward import _SPARE, standardised
from diffpref.rewards._blip_reward import MEAN as CLIP_MEAN
from diffpref.rewards._blip_reward import STD as CLIP_STD
from diffpref.rewards._layout import fill
from diffpref.rewards._pil_framing import pil_pixels
from diffpref.rewards.image_reward import MEAN, STD

IDS = torch.tensor([[2, 5, 6, 10, 3, 0, 0], [2, 7, 11, 12, 8, 9, 3]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("image_reward"))


def filled(state: dict[str, Tensor]) -> Blip:
    model = Blip(BlipSizes.of(state, CONFIG))
    fill(model, state, "here", dtype=torch.float64, spare=_SPARE)
    return model


def test_the_published_normalisation():
    found = standardised(torch.tensor([0.5, -1.25, 2.0], dtype=torch.float64), MEAN, STD)
    expected = torch.tensor([0.322088116, -1.37145017, 1.7736923612], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_the_towers_and_the_head_compute_what_the_official_code_computes():
    """The numbers: those of THUDM/ImageReward's ``vit.py``, ``med.py`` and ``MLP``, run in float64 on these sines."""
    state = {}
    for place, (name, shape) in enumerate(sorted(shapes().items())):
        count = torch.Size(shape).numel()
        values = torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + 0.31 * place) * 0.2
        state[name] = (1 + 0.1 * values if "orm" in name and name.endswith("weight") else values).reshape(shape)
    steps = torch.arange(3 * SIDE**2, dtype=torch.float64) * 0.01
    pixels = torch.stack([torch.sin(steps * (k + 1)).reshape(3, SIDE, SIDE) for k in range(2)])
    model = filled(state)
    features = model.blip["text_encoder"](IDS, MASK, model.blip["visual_encoder"](pixels))[:, 0]
    expected = [[-0.7321934623969379, 1.1547134664843468, -0.2734676914191287]]
    expected += [[-0.7693107271537841, 1.0839779018972733, -0.21027763099609018]]
    torch.testing.assert_close(features[:, :3], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    weight, bias = affine(state)
    found = standardised(features @ weight + bias, MEAN, STD)
    golden = torch.tensor([1.4214312260689872, 1.4138013744536724], dtype=torch.float64)
    torch.testing.assert_close(found, golden, rtol=0, atol=1e-12)


def test_the_towers_are_those_of_transformers():
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    state = {name: tensor.double() for name, tensor in blip_state(3).items() if tensor.is_floating_point()}
    sizes = {"image_size": SIDE, "patch_size": 16, "hidden_size": VISION, "intermediate_size": 4 * VISION}
    vision = BlipVisionModel(
        BlipVisionConfig(**sizes, num_hidden_layers=2, num_attention_heads=2, layer_norm_eps=1e-6)
    ).double()
    renamed = {
        "cls_token": "embeddings.class_embedding",
        "pos_embed": "embeddings.position_embedding",
        "patch_embed.proj": "embeddings.patch_embedding",
        "blocks.": "encoder.layers.",
        ".attn.proj": ".self_attn.projection",
        ".attn.": ".self_attn.",
        ".norm1": ".layer_norm1",
        ".norm2": ".layer_norm2",
    }
    theirs = {}
    for name, tensor in state.items():
        if name.startswith("blip.visual_encoder."):
            new = name.removeprefix("blip.visual_encoder.")
            for old, other in renamed.items():
                new = new.replace(old, other)
            theirs[f"post_layernorm.{new[5:]}" if new.startswith("norm.") else new] = tensor
    vision.load_state_dict(theirs, strict=True)
    kept = {key: value for key, value in CONFIG.items() if key != "encoder_width"}
    text = BlipTextModel(BlipTextConfig(**kept, encoder_hidden_size=VISION), add_pooling_layer=False).double()
    prefix = "blip.text_encoder."
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    assert [n for n in text.load_state_dict(own, strict=False).missing_keys if "position_ids" not in n] == []
    pixels = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = filled(state)
    with torch.no_grad():
        picture = vision.eval()(pixels).last_hidden_state
        told = text.eval()(IDS, attention_mask=MASK, encoder_hidden_states=picture).last_hidden_state[:, 0]
        found = model.blip["text_encoder"](IDS, MASK, model.blip["visual_encoder"](pixels))[:, 0]
    torch.testing.assert_close(found, told, rtol=0, atol=1e-10)
    assert told.std() > 0.3  # they say something


def test_the_head_is_the_affine_map_that_its_layers_are():
    state = blip_state(5)
    x = torch.randn(4, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight, bias = affine(state)
    layered = x
    for number in (0, 2, 4, 6, 7):
        one = (state[f"mlp.layers.{number}.{part}"].double() for part in ("weight", "bias"))
        layered = torch.nn.functional.linear(layered, *one)
    torch.testing.assert_close(x @ weight + bias, layered[:, 0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [(150, 91), (40, 133), (64, 64)])
def test_a_picture_is_framed_as_published(folder, size):
    reward = rewards.load("image_reward", str(folder))
    (picture,) = [Image.fromarray(one) for one in pictures(1, size)]
    width, height = picture.size
    short = min(width, height)
    resized = picture.resize((int(SIDE * width / short), int(SIDE * height / short)), Image.Resampling.BICUBIC)
    left, top = (round((side - SIDE) / 2) for side in resized.size)
    pixels = np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)), dtype=np.float64) / 255
    expected = (pixels - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    found = pil_pixels([picture], reward.framing)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() < 1e-5


def test_a_prompt_is_read_up_to_35_word_pieces_from_its_first_token_on(folder):
    reward = rewards.load("image_reward", str(folder))
    picture = pictures(1)
    long = " ".join(["red"] * 33)  # with [CLS] and [SEP] it fills the 35 places
    scores = reward.score(picture * 3, [long, f"{long} blue", " ".join(["red"] * 32)])
    assert scores[0] == scores[1] != scores[2]
    tokens = reward.tokenizer("a red circle")
    assert tokens.input_ids[0] == 2 and reward.tokenizer.convert_ids_to_tokens(2) == "[CLS]"


def test_a_probability_is_the_sigmoid_of_the_heads_difference(folder):
    reward = rewards.load("image_reward", str(folder))
    scores = reward.score(pictures(2), sentences(1) * 2)
    raw = scores.double() * STD + MEAN
    expected = torch.sigmoid(raw[0] - raw[1])
    found = rewards.preference_probability(reward.info, scores[:1], scores[1:])
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "blip.text_encoder.encoder.layer.1.crossattention.self.key.weight",
            None,
            "lacks 1 tensors, such as blip.text",
        ),
        ("mlp.layers.6.bias", None, "lacks 1 tensors, such as mlp.layers.6.bias"),
        ("blip.visual_encoder.pos_embed", None, "not the published layout"),
        (
            "blip.visual_encoder.head.weight",
            torch.zeros(2),
            "1 unknown tensors, such as blip.visual_encoder.head.weight",
        ),
        ("mlp.layers.7.weight", torch.zeros(2, 16), r"mlp.layers.7.weight is \(2, 16\), expected \(1, 16\)"),
        ("blip.visual_encoder.pos_embed", torch.zeros(1, 18, VISION), "no square"),
        ("blip.text_encoder.embeddings.position_ids", None, ""),
        ("blip.vision_proj.weight", None, ""),
    ],
)
def test_every_weight_is_there_and_no_other(folder, tmp_path, name, change, message):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    state = load_file(copy / "ImageReward.safetensors")
    state.pop(name, None)
    save_file(state | ({} if change is None else {name: change}), copy / "ImageReward.safetensors")
    if not message:
        expected = rewards.load("image_reward", str(folder)).score(pictures(2), sentences(2))
        assert torch.equal(rewards.load("image_reward", str(copy)).score(pictures(2), sentences(2)), expected)
        return
    with pytest.raises(ModelError, match=message) as caught:
        rewards.load("image_reward", str(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hidden_act": "relu"}, "must be gelu"),
        ({"num_attention_heads": 7}, "no multiple of its attention heads"),
        ({"vocab_size": None}, "med_config.json"),
        ({"hidden_size": 64}, r"is \(.*\), expected \("),
    ],
)
def test_a_configuration_of_another_model_is_refused(folder, tmp_path, changed, message):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "med_config.json").write_text(json.dumps(CONFIG | changed), encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        rewards.load("image_reward", str(copy))


def test_the_published_pickle_is_opened_with_leave_and_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFPREF_CACHE", str(tmp_path / "cache"))
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    torch.save(load_file(copy / "ImageReward.safetensors"), copy / "ImageReward.pt")
    (copy / "ImageReward.safetensors").unlink()
    with pytest.raises(ModelError, match=r"ImageReward.pt is a pickle, .* allow_pickle=true"):
        rewards.load("image_reward", str(copy))
    found = rewards.load("image_reward", str(copy), allow_pickle=True).score(pictures(2), sentences(2))
    assert torch.equal(found, rewards.load("image_reward", str(folder)).score(pictures(2), sentences(2)))
    assert rewards.load("image_reward", str(copy)).info.version.startswith("sha256-")


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n", encoding="utf-8")
    with pytest.raises(ModelError, match="the tokenizer knows 6 words"):
        rewards.load("image_reward", str(copy))
    assert rewards.load("image_reward", str(copy), tokenizer=str(folder)).info.name == "image_reward"


def test_the_published_size_has_the_official_models_parameters():
    """Counts of THUDM/ImageReward's own classes at ViT-L/16 and BERT base, whose names and shapes are the same."""
    sizes = BlipSizes(
        image_size=224,
        patch_size=16,
        vision_width=1024,
        vision_layers=24,
        vocab_size=30524,
        positions=512,
        text_width=768,
        text_layers=12,
        text_heads=12,
        text_inner=3072,
        text_epsilon=1e-12,
    )
    with torch.device("meta"):
        model = Blip(sizes)
    state = {**model.state_dict(), "mlp.layers.0.weight": torch.empty(1024, 768, device="meta")}
    config = {**CONFIG, "vocab_size": 30524, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    config |= {"intermediate_size": 3072, "max_position_embeddings": 512}
    assert BlipSizes.of(state, config) == sizes
    assert len(state) == 620 and sum(tensor.numel() for tensor in state.values()) == 446_206_689
    assert model.blip["visual_encoder"].blocks[0].heads == 16


def test_vp_score_is_the_same_architecture_with_constants_of_its_own(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "ImageReward.safetensors").rename(copy / "VPScore.safetensors")
    raw = rewards.load("vp_score", str(copy))
    scaled = rewards.load("vp_score", str(copy), mean=MEAN, std=STD)
    published = rewards.load("image_reward", str(folder)).score(pictures(2), sentences(2))
    assert torch.allclose(scaled.score(pictures(2), sentences(2)), published, atol=1e-6)
    expected = standardised(raw.score(pictures(2), sentences(2)), MEAN, STD)
    assert torch.allclose(published, expected, atol=1e-5) and raw.info.version != scaled.info.version
