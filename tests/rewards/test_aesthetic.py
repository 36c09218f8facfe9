"""Aesthetic predictors: layers and their fold agree, the published layouts are strict, the encoder is the right one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_aesthetic import HEADS, head, save_aesthetic
from torch import Tensor

from diffpref import rewards
from diffpref.core.errors import ConfigError, ModelError
from diffpref.core.files import sha256
from diffpref.rewards._affine_head import affine_score, folded, linear_layers

PICTURES = [np.random.default_rng(i).integers(0, 256, (40, 90, 3), dtype=np.uint8) for i in range(4)]
PROMPTS = [""] * 4
WIDTH = {"aesthetic_v2": 12, "aesthetic_v25": 24}
REAL_HEAD = os.environ.get("DIFFPREF_AESTHETIC_V2", "")


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        return save_aesthetic(tmp_path / name, name)

    return make


def stack(tensors: dict[str, Tensor]) -> torch.nn.Sequential:
    """The layers one after the other, as the official code runs them without its dropouts."""
    numbers = sorted({int(name.split(".")[1]) for name in tensors})
    prefix = next(iter(tensors)).split(".")[0]
    layers = []
    for number in numbers:
        weight = tensors[f"{prefix}.{number}.weight"]
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        layer.weight.data, layer.bias.data = weight.double(), tensors[f"{prefix}.{number}.bias"].double()
        layers.append(layer)
    return torch.nn.Sequential(*layers)


def test_the_published_formula_at_reduced_width():
    case = json.loads((Path(__file__).parents[1] / "golden" / "rewards" / "aesthetic_mlp_linear.json").read_text())
    widths = case["params"]["layer_dims"]
    layers = []
    for number, (columns, rows) in enumerate(pairwise(widths)):
        i, j = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (rows, columns)), indexing="ij")
        weight = torch.sin(0.37 * i + 0.11 * j + number) / columns**0.5
        layers.append((weight, 0.1 * torch.cos(torch.arange(rows, dtype=torch.float64) + number)))
    embeds = torch.stack([torch.sin(0.7 * torch.arange(8, dtype=torch.float64) + 0.2 * k + 0.1) for k in range(2)])
    weight, bias = folded(layers)
    expected = torch.tensor(case["expected"]["score"], dtype=torch.float64)
    torch.testing.assert_close(affine_score(embeds, weight, bias), expected, rtol=0, atol=1e-9)
    without = torch.tensor(case["expected"]["score_without_normalisation"], dtype=torch.float64)
    torch.testing.assert_close(embeds @ weight + bias, without, rtol=0, atol=1e-9)
    assert affine_score(torch.zeros(1, 8), weight, bias).item() == pytest.approx(float(bias))


@pytest.mark.parametrize("name", HEADS)
def test_the_fold_is_the_stack(name):
    _, prefix, numbers, dtype = HEADS[name]
    tensors = head(prefix, numbers, dtype, 768)
    weight, bias = folded(linear_layers(tensors, prefix, numbers, 768, "x"))
    embeds = torch.randn(5, 768, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = stack(tensors)(torch.nn.functional.normalize(embeds, dim=-1))[:, 0]
    torch.testing.assert_close(affine_score(embeds, weight, bias), expected, rtol=0, atol=1e-10)
    single = affine_score(embeds.float(), weight, bias)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", HEADS)
def test_a_score_is_the_stack_on_the_models_own_embedding(folder, name):
    import transformers

    path = folder(name)
    reward = rewards.load(name, str(path), allow_pickle=True)
    pictures = [Image.fromarray(picture) for picture in PICTURES]
    if name == "aesthetic_v2":
        model = transformers.CLIPModel.from_pretrained(path).eval()
        pixels = transformers.CLIPImageProcessor.from_pretrained(path)(
            images=pictures, return_tensors="pt"
        ).pixel_values
        embeds = model.visual_projection(model.vision_model(pixels).pooler_output)
    else:
        model = transformers.SiglipModel.from_pretrained(path).eval()
        processor = transformers.SiglipImageProcessor.from_pretrained(path)
        pixels = processor(images=pictures, return_tensors="pt").pixel_values
        embeds = model.vision_model(pixels).pooler_output
    file, *_ = HEADS[name]
    layers = stack(torch.load(path / file, weights_only=True))
    expected = layers(torch.nn.functional.normalize(embeds.double(), dim=-1))[:, 0].float()
    assert torch.allclose(reward.score(PICTURES, PROMPTS), expected, atol=1e-5)
    assert reward.info.needs_prompt is False and reward.info.pair_scale is None


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_opened_once_and_a_converted_one_needs_no_leave(folder, tmp_path, monkeypatch, name):
    monkeypatch.setenv("DIFFPREF_CACHE", str(tmp_path / "cache"))
    path = folder(name)
    file, prefix, numbers, dtype = HEADS[name]
    with pytest.raises(ModelError, match="is a pickle, which may run code"):
        rewards.load(name, str(path))
    expected = rewards.load(name, str(path), allow_pickle=True).score(PICTURES, PROMPTS)
    assert torch.equal(rewards.load(name, str(path)).score(PICTURES, PROMPTS), expected)
    (tmp_path / "apart").mkdir()
    save_file(
        head(prefix, numbers, dtype, WIDTH[name]), tmp_path / "apart" / Path(file).with_suffix(".safetensors").name
    )
    apart = rewards.load(name, str(tmp_path / "apart"), encoder=str(path))
    assert torch.equal(apart.score(PICTURES, PROMPTS), expected)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, p: t.pop(f"{p}.4.bias"), "lacks 1 tensors, such as {p}.4.bias"),
        (lambda t, p: t.update({f"{p}.9.bias": torch.zeros(1)}), "has 1 unknown tensors, such as {p}.9.bias"),
        (
            lambda t, p: t.update({f"{p}.0.weight": torch.zeros(1024, 7)}),
            "{p}.0.weight is (1024, 7), expected (1024, {w})",
        ),
    ],
)
def test_another_layout_is_refused(folder, name, change, message):
    path = folder(name)
    file, prefix, numbers, dtype = HEADS[name]
    tensors = head(prefix, numbers, dtype, WIDTH[name])
    change(tensors, prefix)
    torch.save(tensors, path / file)
    with pytest.raises(ModelError) as caught:
        rewards.load(name, str(path), allow_pickle=True)
    assert message.format(p=prefix, w=WIDTH[name]) in str(caught.value) and "\n" not in str(caught.value)


def test_the_variant_with_activations_is_told_apart(folder):
    path = folder("aesthetic_v2")
    torch.save(head("layers", (0, 3, 6, 9, 11), torch.float32, 12), path / "ava+logos-l14-reluMSE.pth")
    with pytest.raises(ModelError, match="the reluMSE variant, with activations between its layers"):
        rewards.load("aesthetic_v2", str(path / "ava+logos-l14-reluMSE.pth"), allow_pickle=True)


def test_another_clip_is_refused(folder):
    path = folder("aesthetic_v2")
    config = json.loads((path / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "gelu"
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="a CLIP with gelu; the head was trained on OpenAI's"):
        rewards.load("aesthetic_v2", str(path), allow_pickle=True)


def test_weights_under_agpl_are_opened_only_where_they_are_given(tmp_path):
    with pytest.raises(ConfigError, match=r"needs a path: a folder; it reads .*licence: AGPL-3\.0"):
        rewards.load("aesthetic_v25")
    with pytest.raises(ModelError, match=r"no such file or folder; .*licence: AGPL-3\.0"):
        rewards.load("aesthetic_v25", "discus0434/aesthetic-predictor-v2-5")  # never fetched


@pytest.mark.parametrize("name", HEADS)
def test_the_version_follows_head_encoder_and_precision(folder, tmp_path, name):
    path = folder(name)

    def version(**options: object) -> str:
        return rewards.load(name, str(path), allow_pickle=True, **options).info.version

    first = version()
    assert version(precision="bfloat16") == f"{first}+bfloat16"
    other = Path(shutil.copytree(path, tmp_path / "other"))
    (other / "preprocessor_config.json").write_text((other / "preprocessor_config.json").read_text() + "\n")
    assert version(encoder=str(other)) != first
    file, prefix, numbers, dtype = HEADS[name]
    tensors = head(prefix, numbers, dtype, WIDTH[name])
    tensors[f"{prefix}.0.bias"] += 1
    torch.save(tensors, path / file)
    assert version() != first


@pytest.mark.skipif(not REAL_HEAD, reason="DIFFPREF_AESTHETIC_V2 names no sac+logos+ava1-l14-linearMSE.pth")
def test_the_published_head():
    from diffpref.rewards._pickles import read_tensors
    from diffpref.rewards.aesthetic_v2 import LAYERS

    assert sha256(Path(REAL_HEAD)) == "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
    tensors = read_tensors(Path(REAL_HEAD), allow_pickle=True)
    weight, bias = folded(linear_layers(tensors, "layers", LAYERS, 768, REAL_HEAD))
    assert weight.norm().item() == pytest.approx(17.99562477643365, abs=1e-10)
    assert bias.item() == pytest.approx(5.236645844819847, abs=1e-10)
    embeds = torch.sin(0.1 * torch.arange(768, dtype=torch.float64) + 0.3)[None]
    assert affine_score(embeds, weight, bias).item() == pytest.approx(5.227744976745638, abs=1e-9)
