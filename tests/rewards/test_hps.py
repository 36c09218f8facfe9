"""HPS v2 and v2.1: the published checkpoint files, opened once and loaded strictly; the names of former versions."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_encoders import save_open_clip, save_open_clip_checkpoint

from diffpref import rewards
from diffpref.core.contracts import Reward
from diffpref.core.errors import ConfigError, ModelError
from diffpref.rewards._pickles import cache_folder

PICTURES = [np.random.default_rng(i).integers(0, 256, (40, 90, 3), dtype=np.uint8) for i in range(3)]
PROMPTS = ["a red circle", "a blue square", "a ring"]
FILES = {"hps_v2": "HPS_v2_compressed.pt", "hps_v21": "HPS_v2.1_compressed.pt"}
TINY = {"architecture": "tiny-hps"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two files as the hub has them; nothing has been converted yet."""
    monkeypatch.setenv("DIFFPREF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hub").mkdir()
    save_open_clip_checkpoint(tmp_path / "hub", FILES["hps_v21"])
    content = torch.load(tmp_path / "hub" / FILES["hps_v21"], weights_only=True)
    content["state_dict"]["visual.proj"] = content["state_dict"]["visual.proj"].flip(0)
    torch.save(content, tmp_path / "hub" / FILES["hps_v2"])
    return tmp_path / "hub"


def load(path: Path, name: str = "hps_v21", **options: object) -> Reward:
    return rewards.load(name, str(path), **{**TINY, **options})


def test_the_file_is_opened_once_with_leave_and_afterwards_without(folder):
    with pytest.raises(ModelError, match="is a pickle, which may run code; pass allow_pickle=true"):
        load(folder)
    first = load(folder, allow_pickle=True).score(PICTURES, PROMPTS)
    assert len(list((cache_folder() / "converted").iterdir())) == 1
    assert torch.equal(load(folder).score(PICTURES, PROMPTS), first)
    assert torch.equal(load(folder / FILES["hps_v21"]).score(PICTURES, PROMPTS), first)
    with pytest.raises(ModelError, match=r"HPS_v2_compressed\.pt is a pickle"):
        load(folder, "hps_v2")


def test_each_version_reads_its_own_file(folder):
    old, new = (load(folder, name, allow_pickle=True) for name in FILES)
    assert (old.info.name, new.info.name) == ("hps_v2", "hps_v21")
    assert old.info.version != new.info.version
    assert not torch.allclose(old.score(PICTURES, PROMPTS), new.score(PICTURES, PROMPTS), atol=1e-3)


def test_the_former_names_mean_what_they_meant(folder):
    expected = {name: load(folder, name, allow_pickle=True) for name in FILES}
    for name, options in (("hps", {}), ("hps", {"version": "v2.1"}), ("hps_v21", {})):
        found = load(folder, name, **options)
        assert found.info == expected["hps_v21"].info
        assert torch.equal(found.score(PICTURES, PROMPTS), expected["hps_v21"].score(PICTURES, PROMPTS))
    assert load(folder, "hps", version="v2").info == expected["hps_v2"].info


def test_what_the_hub_gave_before_needs_no_leave_once_converted(folder, monkeypatch, tmp_path):
    from huggingface_hub import constants

    hub = tmp_path / "hub-cache"
    snapshot = hub / "models--xswu--HPSv2" / "snapshots" / ("a" * 40)
    shutil.copytree(folder, snapshot)
    (hub / "models--xswu--HPSv2" / "refs").mkdir()
    (hub / "models--xswu--HPSv2" / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    with pytest.raises(ModelError, match="pass allow_pickle=true"):
        rewards.load("hps_v21", "xswu/HPSv2", **TINY)
    trusted = rewards.load("hps_v21", "xswu/HPSv2", allow_pickle=True, **TINY)
    assert trusted.info.version == "v2.1"
    found = rewards.load("hps_v21", "xswu/HPSv2", **TINY)
    assert found.info == trusted.info
    assert torch.equal(found.score(PICTURES, PROMPTS), trusted.score(PICTURES, PROMPTS))


def test_a_converted_file_scores_the_same(folder, tmp_path):
    state = torch.load(folder / FILES["hps_v21"], weights_only=True)["state_dict"]
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "mine.safetensors")
    expected = load(folder, allow_pickle=True)
    found = load(tmp_path / "mine.safetensors", multiply_100=True)
    assert torch.allclose(found.score(PICTURES, PROMPTS), 100 * expected.score(PICTURES, PROMPTS), atol=1e-4)
    assert found.info.pair_scale == pytest.approx(expected.info.pair_scale / 100)
    assert found.info.version.endswith("+x100") and found.info.version != expected.info.version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("text_projection"), r"lacks 1 tensors, such as text_projection"),
        (lambda state: state.update(extra=torch.zeros(1)), r"has 1 unknown tensors, such as extra"),
        (
            lambda state: state.update({"ln_final.bias": torch.zeros(17)}),
            r"ln_final\.bias is \(17,\), expected \(16,\)",
        ),
    ],
)
def test_another_layout_is_refused(folder, tmp_path, change, message):
    state = torch.load(folder / FILES["hps_v21"], weights_only=True)["state_dict"]
    state = {name: tensor.clone() for name, tensor in state.items()}
    change(state)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        load(tmp_path / "other.safetensors")
    assert "\n" not in str(caught.value) and "other.safetensors: not the published layout" in str(caught.value)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / FILES["hps_v21"]).write_bytes(b"garbage")
    with pytest.raises(ModelError, match="cannot be read as a checkpoint"):
        load(tmp_path, allow_pickle=True)
    with pytest.raises(ConfigError, match="open_clip has no architecture 'ViT-H-15'; did you mean 'ViT-H-1"):
        load(save_open_clip_checkpoint(tmp_path, FILES["hps_v21"]), allow_pickle=True, architecture="ViT-H-15")
    with pytest.raises(ConfigError, match="not one of open_clip's own towers"):
        load(tmp_path, allow_pickle=True, architecture="ViT-B-16-SigLIP")
    (tmp_path / "folder").mkdir()
    own = save_open_clip(tmp_path / "folder")
    with pytest.raises(ConfigError, match="is what its config says"):
        load(own)


@torch.no_grad()
def test_scores_are_those_of_stock_open_clip(folder):
    import open_clip

    reward = load(folder, allow_pickle=True)
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-hps")
    model.load_state_dict(torch.load(folder / FILES["hps_v21"], weights_only=True)["state_dict"], strict=True)
    tokens = open_clip.get_tokenizer("tiny-hps")(PROMPTS)
    assert tokens.shape == (3, 77) and tokens[0, 0] == 49406
    pixels = torch.stack([preprocess(Image.fromarray(picture)) for picture in PICTURES])
    images, texts = model.eval().encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
    assert torch.allclose(reward.score(PICTURES, PROMPTS), (images * texts).sum(dim=1), atol=1e-6)
    assert reward.info.pair_scale == pytest.approx(float(model.logit_scale.exp()))


def test_weights_in_half_precision_are_no_reason_to_doubt_the_activation(folder, tmp_path):
    state = torch.load(folder / FILES["hps_v21"], weights_only=True)["state_dict"]
    halves = {name: tensor.half().contiguous() for name, tensor in state.items()}
    save_file(halves, tmp_path / "halves.safetensors")
    save_file({name: tensor.float() for name, tensor in halves.items()}, tmp_path / "floats.safetensors")
    found, expected = (load(tmp_path / f"{name}.safetensors").score(PICTURES, PROMPTS) for name in ("halves", "floats"))
    assert torch.equal(found, expected)
    assert torch.allclose(found, load(folder, allow_pickle=True).score(PICTURES, PROMPTS), atol=0.02)


def test_the_bundled_scorer_keeps_the_version_of_stored_scores():
    stored = json.loads((Path(__file__).parents[2] / "benchmarks" / "demo_seeds.json").read_text())
    (version,) = {judge["version"] for judge in _named(stored, "hps")}
    for name in ("hps", "hps_v21"):
        assert rewards.load(name, "bundled:shapes-hps").info.version == version


def _named(content: object, name: str) -> Iterator[dict[str, str]]:
    if isinstance(content, dict):
        if content.get("name") == name:
            yield content
        content = list(content.values())
    if isinstance(content, list):
        for one in content:
            yield from _named(one, name)


def test_both_versions_take_the_same_options():
    parameters = [
        {
            name: (p.default, str(p.annotation))
            for name, p in inspect.signature(rewards.registry.get(n)).parameters.items()
        }
        for n in FILES
    ]
    assert parameters[0] == parameters[1]


def test_a_pickle_is_converted_once_and_tied_or_strided_tensors_are_kept(tmp_path, monkeypatch):
    from diffpref.rewards._pickles import read_tensors

    monkeypatch.setenv("DIFFPREF_CACHE", str(tmp_path / "cache"))
    base = torch.arange(12.0).reshape(3, 4)
    given = {
        "a": base,
        "tied": base,
        "strided": base.t(),
        "part": base[1],
        "half": base.bfloat16(),
        "one": torch.tensor(2),
    }
    for legacy in (True, False):
        torch.save({"model": given, "epoch": 1}, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
        found = read_tensors(tmp_path / "x.pth", allow_pickle=True)
        again = read_tensors(tmp_path / "x.pth")
        (converted,) = (tmp_path / "cache" / "converted").iterdir()
        stored = load_file(converted)
        assert given.keys() == found.keys() == again.keys() == stored.keys()
        for name, tensor in given.items():
            assert torch.equal(found[name], tensor) and torch.equal(again[name], tensor)
            assert found[name].dtype == stored[name].dtype == tensor.dtype
        converted.unlink()
