"""CLIP scores: one model in two libraries gives one score; QuickGELU is noticed; scales, tags, files of open_clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_twins import save_twins
from safetensors.torch import load_file, save_file
from tiny_encoders import save_open_clip_checkpoint
from torch import Tensor
from torch.nn.functional import normalize

from diffpref import rewards
from diffpref.core.errors import ConfigError, DiffprefError, ModelError
from diffpref.rewards._dual_encoder import paired_cosine
from diffpref.rewards.clip import scaled

PICTURES = [np.random.default_rng(i).integers(0, 256, (48, 80, 3), dtype=np.uint8) for i in range(4)]
PROMPTS = ["a red circle", "a blue square", "", "a ring left of a cross"]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_twins(tmp_path_factory.mktemp("twins"))


def score(path: Path | str, **options: Any) -> Tensor:
    return rewards.load("clip", str(path), **options).score(PICTURES, PROMPTS)


def exact(path: Path, **options: Any) -> Tensor:
    """Scores of pixels that need no resizing, which the libraries do a little differently."""
    pixels = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return rewards.load("clip", str(path), **options).score_tensors(pixels, PROMPTS)


def test_one_model_in_two_libraries_gives_one_score(twins):
    ours, theirs = twins
    assert torch.allclose(score(ours), score(theirs), atol=5e-4)
    assert torch.allclose(exact(ours), exact(theirs), atol=1e-5)
    assert rewards.load("clip", str(theirs)).info.version != rewards.load("clip", str(ours)).info.version


def test_a_folder_of_both_layouts_is_read_as_it_is_told(twins, tmp_path):
    import shutil

    for folder in twins:
        shutil.copytree(folder, tmp_path / "both", dirs_exist_ok=True)
    config = json.loads((tmp_path / "both" / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = False  # so that one can see which was read
    (tmp_path / "both" / "open_clip_config.json").write_text(json.dumps(config))
    assert torch.equal(score(tmp_path / "both"), score(twins[0]))
    assert torch.equal(score(tmp_path / "both", backend="transformers"), score(twins[0]))
    found = score(tmp_path / "both", backend="open_clip")
    assert not torch.allclose(found, score(twins[1]), atol=1e-3)
    assert torch.equal(score(tmp_path / "both", backend="open_clip", quick_gelu=True), score(twins[1]))


# ---------------------------------------------------------------- QuickGELU


def test_halves_without_quick_gelu_are_not_taken_silently(tmp_path):
    ours, theirs = save_twins(tmp_path, quick_gelu=False, halves=True)
    with pytest.raises(ConfigError, match="pass quick_gelu=true for weights of OpenAI, quick_gelu=false for others"):
        score(theirs)
    right, wrong = exact(theirs, quick_gelu=True), exact(theirs, quick_gelu=False)
    assert torch.allclose(right, exact(ours), atol=1e-5) and not torch.allclose(wrong, right, atol=1e-3)
    versions = [rewards.load("clip", str(theirs), quick_gelu=said).info.version for said in (True, False)]
    assert versions[0] == f"{versions[1]}+quickgelu"


def test_a_config_with_quick_gelu_needs_no_word_and_bears_no_other(twins, tmp_path):
    ours, theirs = save_twins(tmp_path, halves=True)
    assert torch.allclose(exact(theirs), exact(ours), atol=1e-5)
    with pytest.raises(ConfigError, match="quick_gelu: false, but its architecture is one with QuickGELU"):
        score(theirs, quick_gelu=False)
    with pytest.raises(ConfigError, match=r"transformers' config\.json tells its own"):
        score(ours, quick_gelu=True)


def test_the_marks_of_openais_state_dicts_tell_quick_gelu(tmp_path):
    folder = save_open_clip_checkpoint(tmp_path, "plain.pt", "tiny-clip")
    state = {k: v.contiguous() for k, v in torch.load(folder / "plain.pt", weights_only=True)["state_dict"].items()}
    marks = {"input_resolution": 64, "context_length": 77, "vocab_size": 49408}
    save_file(state, folder / "plain.safetensors")
    save_file(state | {name: torch.tensor(value) for name, value in marks.items()}, folder / "openai.safetensors")
    plain = score(folder / "plain.safetensors", architecture="tiny-clip")
    told = score(folder / "plain.safetensors", architecture="tiny-clip", quick_gelu=True)
    assert torch.equal(score(folder / "openai.safetensors", architecture="tiny-clip"), told)
    assert not torch.allclose(plain, told, atol=1e-3)


# ---------------------------------------------------------------- what the hub has


def cached(hub: Path, hub_id: str, files: dict[str, Path]) -> str:
    """Lay files out as the hub's client keeps them; return the commit."""
    folder, commit = hub / f"models--{hub_id.replace('/', '--')}", "c" * 40
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    for name, source in files.items():
        (folder / "snapshots" / commit / name).write_bytes(source.read_bytes())
    return commit


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_id_of_open_clips_layout(twins, hub):
    commit = cached(hub, "someone/clip", {file.name: file for file in twins[1].iterdir()})
    reward = rewards.load("clip", "someone/clip", backend="open_clip")
    assert torch.equal(reward.score(PICTURES, PROMPTS), score(twins[1]))
    assert reward.info.version == f"someone/clip@{commit[:12]}+open_clip+cosine"
    with pytest.raises(
        ModelError, match=r"someone/other: could not be fetched .*; reward 'clip' reads open_clip_config"
    ):
        rewards.load("clip", "someone/other", backend="open_clip")


def test_a_hub_id_with_a_pickle_only_needs_leave(twins, hub, tmp_path):
    torch.save(load_file(twins[1] / "open_clip_model.safetensors"), tmp_path / "open_clip_pytorch_model.bin")
    files = [file for file in twins[1].iterdir() if file.suffix != ".safetensors"]
    files.append(tmp_path / "open_clip_pytorch_model.bin")
    cached(hub, "someone/pickled", {file.name: file for file in files})
    with pytest.raises(ModelError, match=r"no file open_clip_model\.safetensors"):
        rewards.load("clip", "someone/pickled", backend="open_clip")
    found = rewards.load("clip", "someone/pickled", backend="open_clip", allow_pickle=True)
    assert torch.equal(found.score(PICTURES, PROMPTS), score(twins[1]))


@pytest.mark.parametrize("quick", [True, False])
def test_a_tag_brings_its_own_activation_and_framing(hub, tmp_path, monkeypatch, quick):
    from open_clip import pretrained

    save_open_clip_checkpoint(tmp_path, "plain.pt", "tiny-clip")
    state = torch.load(tmp_path / "plain.pt", weights_only=True)["state_dict"]
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "open_clip_model.safetensors")
    cached(hub, "someone/tagged", {"open_clip_model.safetensors": tmp_path / "open_clip_model.safetensors"})
    tag = pretrained._pcfg(hf_hub="someone/tagged/", quick_gelu=quick, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-clip", {"ours": tag})
    reward = rewards.load("clip", "ours", architecture="tiny-clip")
    assert reward.info.version == f"tiny-clip/ours@{'c' * 12}+cosine"
    framing = reward.encoder.framing
    assert framing.mean == (0.5, 0.5, 0.5)
    pixels = (framing(torch.rand(2, 3, 64, 64)) * 0.5 + 0.5).clamp(0, 1)
    other = rewards.load(
        "clip", str(tmp_path / "open_clip_model.safetensors"), architecture="tiny-clip", quick_gelu=quick
    )
    shifted = (pixels - 0.5) / 0.5 * torch.tensor(other.encoder.framing.std).view(3, 1, 1)
    shifted = shifted + torch.tensor(other.encoder.framing.mean).view(3, 1, 1)
    expected = other.score_tensors(shifted, PROMPTS[:2])
    assert torch.allclose(reward.score_tensors(pixels, PROMPTS[:2]), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        (None, {"architecture": "ViT-L-14"}, "with architecture 'ViT-L-14' give a checkpoint file or a tag"),
        (
            "opnai",
            {"architecture": "ViT-L-14"},
            "no file and no tag .* for open_clip's 'ViT-L-14'; did you mean 'openai'",
        ),
        ("openai", {"architecture": "ViT-L-15"}, "no file and no tag .* for open_clip's 'ViT-L-15'"),
        ("openai", {"architecture": "ViT-L-14", "backend": "transformers"}, "an architecture is open_clip's"),
        ("someone/none", {"backend": "open_clip"}, "could not be fetched"),
    ],
)
def test_mistakes_are_one_clear_line(path, options, message):
    with pytest.raises(DiffprefError, match=message) as caught:
        rewards.load("clip", path, **options)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- scales


def test_half_features_of_near_pictures_are_no_tie():
    random = torch.Generator().manual_seed(0)
    text = torch.randn(1, 1024, generator=random)
    images = 0.22 * text + torch.randn(1, 1024, generator=random)  # a cosine of about 0.2, as real ones
    images = images + 2e-3 * torch.randn(200, 1024, generator=random)
    exact = torch.nn.functional.cosine_similarity(images, text)
    found = paired_cosine(images.half(), text.half())
    assert found.dtype == torch.float32 and found.unique().numel() > 190
    assert (found - exact).abs().max() < 1e-4
    halves = (normalize(images.half(), dim=-1) * normalize(text.half(), dim=-1)).sum(dim=-1)
    assert halves.unique().numel() < 20  # what the official scripts' whole path in half precision makes of them


def test_every_published_scale():
    case = json.loads((Path(__file__).parents[1] / "golden" / "rewards" / "clip_cosine_paired.json").read_text())
    expected = case["expected"]
    cosine = torch.tensor(expected["cosine"], dtype=torch.float64)
    for output, key in [
        ("cosine", "cosine"),
        ("clip_score", "cosine_x100"),
        ("torchmetrics", "torchmetrics_clip_score(max(100cos,0))"),
        ("hessel", "hessel_2.5max(cos,0)"),
    ]:
        wanted = torch.tensor(expected[key], dtype=torch.float64)
        torch.testing.assert_close(scaled(cosine, output), wanted, rtol=0, atol=1e-8)


def test_the_scale_is_part_of_the_version_and_a_clamped_one_defines_no_probability(twins):
    found = {
        o: rewards.load("clip", str(twins[0]), output=o) for o in ("cosine", "clip_score", "torchmetrics", "hessel")
    }
    assert len({reward.info.version for reward in found.values()}) == 4
    cosine = found["cosine"].score(PICTURES, PROMPTS)
    for output, reward in found.items():
        values = reward.score(PICTURES, PROMPTS)
        assert torch.allclose(values, scaled(cosine, output), atol=1e-4)
        assert ((values >= reward.info.range[0]) & (values <= reward.info.range[1])).all()
    assert found["hessel"].info.pair_scale is None and found["torchmetrics"].info.pair_scale is None
    assert found["clip_score"].info.pair_scale == pytest.approx(found["cosine"].info.pair_scale / 100)
    assert rewards.load("clip_score", str(twins[0])).info == found["clip_score"].info
