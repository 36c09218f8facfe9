"""MPS: the golden mask, the official code's numbers, a second computation of a whole score, the published layout."""

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
from tiny_mps import HEAD_WIDTH, HEADS, LAYERS, WIDTH, cross_shapes, save_mps
from torch import Tensor

from diffpref import rewards
from diffpref.core.errors import DiffprefError, ModelError
from diffpref.rewards._layout import fill
from diffpref.rewards._mps_cross import CrossModel, condition_mask
from diffpref.rewards.mps import _SPARE, CONDITIONS

FILE = "MPS_overall_checkpoint.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mps(tmp_path_factory.mktemp("mps"))


def test_the_condition_chooses_the_published_tokens():
    rows = [[0.70523, 0.325141, -0.341374, 0.371589], [0.819953, 0.477946, 0.700048, -0.360997]]
    rows += [[-0.904601, -0.367118, -1.612414, -0.297717], [-0.181457, -0.380875, 2.867655, -0.271454]]
    text = torch.tensor([*rows, [-0.0486, 1.634216, -0.94117, 0.336462]], dtype=torch.float64)
    asked = [[-1.74794, -0.326539, 0.836528, 1.133399], [0.807745, -0.16282, 0.068716, -0.097462]]
    condition = torch.tensor([*asked, [0.196881, 0.064339, 0.377014, -1.796163]], dtype=torch.float64)
    relative, kept = condition_mask(text, condition, 0.3)
    expected = [0.1804489483, 0.4360948073, 0.0058454177, 1.0, -0.1590383724]
    torch.testing.assert_close(relative, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)
    assert kept.tolist() == [False, True, False, True, False]
    assert condition_mask(text, condition, 0.01)[1].tolist() == [True, True, False, True, False]


def test_a_text_is_masked_by_its_own_largest_similarity():
    random = torch.Generator().manual_seed(0)
    text, condition = torch.randn(3, 7, 4, generator=random), torch.randn(5, 4, generator=random)
    text[1] *= 100  # in the official code its similarities would hide every token of the others
    together, kept = condition_mask(text, condition, 0.3)
    for row in range(3):
        assert torch.allclose(together[row], condition_mask(text[row], condition, 0.3)[0])
    assert kept.any(dim=1).all()


def cross_of_sines() -> dict[str, Tensor]:
    state = {}
    for place, (name, shape) in enumerate(sorted(cross_shapes().items())):
        values = torch.sin(0.7 * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + 0.31 * place)
        if "norm.weight" in name:
            values = 1 + 0.1 * values
        elif "norm.bias" in name:
            values = 0 * values
        elif "inv_freq" in name:
            values = 10000.0 ** -(torch.arange(0, HEAD_WIDTH, 2, dtype=torch.float64) / HEAD_WIDTH)
        else:
            values = 0.5 * values
        state[name] = values.reshape(shape)
    return state


def test_the_blocks_compute_what_the_official_code_computes():
    """The numbers: ``Cross_model`` of Kwai-Kolors/MPS, run in float64 on these sines."""
    state = cross_of_sines()
    model = CrossModel.of(state)
    fill(model, state, "here", dtype=torch.float64, spare=_SPARE)
    picture = torch.sin(torch.arange(2 * 5 * WIDTH, dtype=torch.float64) * 0.37).reshape(2, 5, WIDTH)
    text = torch.cos(torch.arange(2 * 6 * WIDTH, dtype=torch.float64) * 0.53).reshape(2, 6, WIDTH)
    kept = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 1]], dtype=torch.bool)
    expected = [[4.764335468975755, -5.824612427818813, 1.6956702094826106, 6.280981904427737]]
    expected += [[3.3274645530323985, -4.519013724957035, -0.937791167295082, 3.322453965961839]]
    found = model(picture, text, kept)[:, 0, :4]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def normed(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def gated(x: np.ndarray) -> np.ndarray:
    value, gate = np.split(x, 2, axis=-1)
    return value * gate / (1 + np.exp(-gate))


def turned(x: np.ndarray) -> np.ndarray:
    """Places as rotations of complex numbers: feature i with feature i + D/2."""
    half = x.shape[-1] // 2
    angles = np.outer(np.arange(len(x)), 10000.0 ** -(np.arange(half) / half))
    spun = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
    return np.concatenate([spun.real, spun.imag], axis=1)


def crossed(state: dict[str, np.ndarray], picture: np.ndarray, text: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The blocks again for one picture, head by head."""
    for number in range(LAYERS):
        part = {k.split(".fn.")[1]: v for k, v in state.items() if k.startswith(f"layers.{number}.0.")}
        x = normed(picture, part["norm.weight"], part["norm.bias"])
        key, value = np.split(text[kept] @ part["to_kv.weight"].T, 2, axis=1)
        queries = np.split(x @ part["to_q.weight"].T, HEADS, axis=1)
        heads = [softmax(query @ key.T / HEAD_WIDTH**0.5) @ value for query in queries]
        picture = picture + np.concatenate(heads, axis=1) @ part["to_out.weight"].T
        picture = picture + gated(x @ part["ff.0.weight"].T) @ part["ff.2.weight"].T
        part = {k.split(".fn.")[1]: v for k, v in state.items() if k.startswith(f"layers.{number}.1.")}
        x = normed(picture, part["norm.weight"], part["norm.bias"])
        fused = x @ part["fused_attn_ff_proj.weight"].T
        ends = np.cumsum([HEADS * HEAD_WIDTH, HEAD_WIDTH, HEAD_WIDTH])
        query, key, value, hidden = np.split(fused, ends, axis=1)
        heads = [softmax(turned(q) @ turned(key).T / HEAD_WIDTH**0.5) @ value for q in np.split(query, HEADS, axis=1)]
        picture = picture + np.concatenate(heads, axis=1) @ part["attn_out.weight"].T
        picture = picture + gated(hidden) @ part["ff_out.1.weight"].T
    return picture


@pytest.mark.parametrize(("condition", "threshold"), [("overall", 0.3), ("detail", 0.01), ("red rings", 0.9)])
@torch.no_grad()
def test_a_whole_score_is_computed_again(folder, condition, threshold):
    """With CLIP's towers of transformers, the mask and everything after it in numpy."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    state = load_file(folder / FILE)
    clip = CLIPModel(CLIPConfig.from_pretrained(folder)).eval()
    own = {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
    clip.load_state_dict({name: tensor for name, tensor in own.items() if "position_ids" not in name})
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    (item,), (prompt,) = pictures(1, (90, 130)), sentences(1)
    pixels = CLIPImageProcessor.from_pretrained(folder)(images=Image.fromarray(item), return_tensors="pt").pixel_values

    def told(text: str) -> tuple[np.ndarray, np.ndarray]:
        ids = tokenizer(text, padding="max_length", max_length=16, truncation=True, return_tensors="pt").input_ids
        output = clip.text_model(input_ids=ids)
        weight = clip.text_projection.weight.double().numpy()
        return output.last_hidden_state[0].double().numpy() @ weight.T, output.pooler_output[
            0
        ].double().numpy() @ weight.T

    text, end = told(prompt)
    asked = told(CONDITIONS.get(condition, condition))[0]
    similarity = (text @ asked.T).max(axis=1)
    kept = similarity / similarity.max() > threshold
    seen = clip.vision_model(pixel_values=pixels).last_hidden_state[0] @ clip.visual_projection.weight.T
    cross = {
        n.removeprefix("cross_model."): t.double().numpy() for n, t in state.items() if n.startswith("cross_model.")
    }
    first = crossed(cross, seen.double().numpy(), text, kept)[0]
    expected = np.exp(3.0) * end @ first / np.linalg.norm(end) / np.linalg.norm(first)
    reward = rewards.load("mps", str(folder), condition=condition, threshold=threshold)
    assert reward.score([item], [prompt]).item() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_conditions_thresholds_and_framing_change_scores_and_versions(folder, tmp_path):
    settings = [{}, {"condition": "detail"}, {"threshold": 0.95}, {"condition": "a red ring"}]
    found = [rewards.load("mps", str(folder), **options) for options in settings]
    assert len({reward.info.version for reward in found}) == 4
    assert len({reward.score(pictures(1), sentences(1)).item() for reward in found}) >= 3
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    told = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps(told | {"image_mean": [0.5, 0.5, 0.5]}))
    framed = rewards.load("mps", str(folder), backbone=str(other))
    assert framed.info.version not in {reward.info.version for reward in found}
    assert framed.score(pictures(1), sentences(1)) != found[0].score(pictures(1), sentences(1))
    one = rewards.load("mps", str(folder / FILE), backbone=str(folder))
    assert torch.equal(one.score(pictures(2), sentences(2)), found[0].score(pictures(2), sentences(2)))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("cross_model.layers.1.1.fn.attn_out.weight", None, "lacks 1 tensors, such as layers.1.1.fn.attn_out.weight"),
        ("cross_model.layers.0.0.fn.to_kv.weight", None, "lacks cross_model.layers.0.0.fn.to_kv.weight"),
        ("cross_model.layers.0.0.fn.to_out.bias", torch.zeros(WIDTH), "1 unknown tensors"),
        ("cross_model.layers.1.0.fn.to_q.weight", torch.zeros(4, WIDTH), r"is \(4, 12\), expected \(24, 12\)"),
        ("model.visual_projection.weight", None, "lacks 1 tensors, such as model.visual_projection.weight"),
        ("model.text_model.head.weight", torch.zeros(2), "has unknown 1 tensors, such as model.text_model.head.weight"),
        ("model.logit_scale", torch.zeros(3), "no CLIP model"),
        ("classifier.weight", torch.zeros(2), "an unknown tensor classifier.weight"),
    ],
)
def test_every_weight_is_there_and_no_other(folder, tmp_path, name, change, message):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    state = load_file(copy / FILE)
    state.pop(name, None)
    save_file(state | ({} if change is None else {name: change}), copy / FILE)
    with pytest.raises(ModelError, match=message) as caught:
        rewards.load("mps", str(copy))
    assert "\n" not in str(caught.value)


def test_the_published_pickle_is_told_apart_with_what_to_do(folder, tmp_path):
    pickled = tmp_path / "MPS_overall_checkpoint.pth"
    torch.save({"a": torch.zeros(1)}, pickled)
    for path in (pickled, tmp_path):
        with pytest.raises(ModelError, match=r"pickled module.* save its state_dict.* with safetensors") as caught:
            rewards.load("mps", str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("preprocessor_config.json", None, "no image processor"),
        ("config.json", "{", "no CLIP model|Expecting|no image processor"),
        ("tokenizer.json", None, "tokenizer"),
    ],
)
def test_parts_of_the_backbone_that_are_missing_are_named(folder, tmp_path, file, content, message):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / file).unlink() if content is None else (copy / file).write_text(content)
    with pytest.raises(DiffprefError, match=message) as caught:
        rewards.load("mps", str(copy), backbone=str(copy))
    assert "\n" not in str(caught.value)


def test_the_mirrors_file_is_read_too_and_several_files_are_not_guessed_between(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    state = {f"mps.{name}": tensor for name, tensor in load_file(copy / FILE).items()}
    (copy / FILE).unlink()
    save_file(state, copy / "model.safetensors")
    found = rewards.load("mps", str(copy)).score(pictures(2), sentences(2))
    assert torch.equal(found, rewards.load("mps", str(folder)).score(pictures(2), sentences(2)))
    shutil.copy(copy / "model.safetensors", copy / "other.safetensors")
    with pytest.raises(ModelError, match=r"2 safetensors files, none of them MPS_overall_checkpoint.safetensors"):
        rewards.load("mps", str(copy))
    shutil.copy(folder / FILE, copy / FILE)
    assert torch.equal(rewards.load("mps", str(copy)).score(pictures(2), sentences(2)), found)


def test_the_published_sizes_are_read_off_the_tensors():
    width, heads, head_width = 1024, 16, 64
    with torch.device("meta"):
        own = CrossModel(width=width, head_width=head_width, heads=heads, inner=4 * width, layers=4)
    model = CrossModel.of(own.state_dict())
    assert json.dumps({n: list(t.shape) for n, t in model.state_dict().items()}) == json.dumps(
        {n: list(t.shape) for n, t in own.state_dict().items()}
    )
    assert len(model.layers) == 4 and model.layers[0][0]["fn"].heads == heads
    assert sum(tensor.numel() for tensor in model.parameters()) == 118_505_472  # the official class's, of these names
