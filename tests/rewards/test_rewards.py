"""Every reward keeps its contract, with real model classes at toy size; what cannot be loaded is refused clearly."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_encoders import save_clip, save_open_clip

from diffpref import rewards
from diffpref.core.contracts import Reward, RewardInfo
from diffpref.core.errors import ConfigError, DataError, DiffprefError, ModelError, ShapeError
from diffpref.core.media import Clip
from diffpref.shapes.grammar import captions
from diffpref.shapes.motion import DIRECTIONS, moving_captions, render_clip
from diffpref.shapes.motion_oracle import MOTION_FACTS
from diffpref.shapes.render import render
from diffpref.words import instructions

ROOT = Path(__file__).parents[2]
RANDOM = np.random.default_rng(0)
PICTURES = [RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(5)]
PROMPTS = ["a red circle", "a blue square left of a red circle", "a red circle", "", "word " * 1000]
WORDS = ("red", "blue", "circle", "square", "left", "of", "a")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def hps_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_clip(tmp_path_factory.mktemp("hps"))


@pytest.fixture(scope="module")
def load(clip_folder: Path, hps_folder: Path) -> Callable[..., Reward]:
    folders = {"clip": clip_folder, "clip_score": clip_folder, "pickscore": clip_folder, "hps": hps_folder}
    return lambda name, **options: rewards.load(name, str(folders[name]), **options)


LEARNED = ["clip", "pickscore", "hps"]


def test_a_reward_file_is_a_reward():
    assert {"clip", "hps_v2", "hps_v21", "image_reward", "oracle", "pickscore", "words"} <= set(rewards.registry)
    assert not set(rewards.SHORT_FORMS) & set(rewards.registry)
    assert {target for target, _ in rewards.SHORT_FORMS.values()} <= set(rewards.registry)


@pytest.mark.parametrize("name", LEARNED)
def test_scores_are_float32_one_for_each_item_and_repeatable(load, name):
    reward = load(name)
    found = reward.score(PICTURES, PROMPTS)
    assert found.shape == (5,) and found.dtype == torch.float32 and torch.isfinite(found).all()
    assert torch.equal(found, reward.score(PICTURES, PROMPTS))
    assert isinstance(reward, Reward) and reward.info.name == {"hps": "hps_v21"}.get(name, name)
    low, high = reward.info.range
    assert ((found >= low) & (found <= high)).all() and found.unique().numel() == 5
    assert reward.score([], []).shape == (0,)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_score_does_not_depend_on_its_batch(load, name, precision):
    reward = load(name, output="cosine", precision=precision) if name != "hps" else load(name, precision=precision)
    together = reward.score(PICTURES, PROMPTS)
    alone = torch.cat([reward.score([picture], [prompt]) for picture, prompt in zip(PICTURES, PROMPTS, strict=True)])
    reversed_ = reward.score(PICTURES[::-1], PROMPTS[::-1]).flip(0)
    atol = 1e-4 if precision == "float32" else 0.02
    assert torch.allclose(together, alone, rtol=0, atol=atol) and torch.allclose(together, reversed_, rtol=0, atol=atol)
    options = {"precision": precision, "micro_batch": 2, **({} if name == "hps" else {"output": "cosine"})}
    assert torch.allclose(together, load(name, **options).score(PICTURES, PROMPTS), rtol=0, atol=atol)


@pytest.mark.parametrize("name", LEARNED)
def test_half_precision_is_near_and_its_head_is_float32(load, name):
    exact, half = load(name), load(name, precision="bfloat16")
    found = half.score(PICTURES, PROMPTS)
    assert found.dtype == torch.float32 and found.unique().numel() == 5
    scale = exact.info.range[1]
    assert torch.allclose(found / scale, exact.score(PICTURES, PROMPTS) / scale, rtol=0, atol=0.05)
    assert half.info.version == f"{exact.info.version}+bfloat16"


@pytest.mark.parametrize("name", LEARNED)
def test_every_kind_of_picture_is_scored(load, name):
    reward = load(name)
    picture = Image.fromarray(PICTURES[0])
    same = [picture, PICTURES[0], torch.from_numpy(PICTURES[0]).permute(2, 0, 1) / 255, picture.convert("RGBA")]
    found = reward.score(same, ["a"] * 4)
    assert torch.allclose(found, found[:1].expand(4), rtol=0, atol=1e-4)
    shapes = [(1, 1), (5000, 10), (10, 5000), (130, 70)]
    odd = [Image.new("L", shape, 100) for shape in shapes] + [picture.convert("P"), picture.convert("LA")]
    assert torch.isfinite(reward.score(odd, ["a"] * 6)).all()
    with pytest.raises(DataError):
        reward.score(["a.png"], ["a"])


@pytest.mark.parametrize("name", LEARNED)
def test_as_many_prompts_as_pictures(load, name):
    reward = load(name)
    with pytest.raises(ShapeError, match="2 items but 1 prompts"):
        reward.score(PICTURES[:2], ["a"])
    with pytest.raises(ShapeError, match="2 items but 1 prompts"):
        reward.score_tensors(torch.zeros(2, 3, 64, 64), ["a"])
    with pytest.raises(ShapeError, match=r"\(N, 3, H, W\)"):
        reward.score_tensors(torch.zeros(1, 64, 64, 3), ["a"])


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_tensors_score_as_pictures_do_and_have_a_gradient(load, name, size):
    reward = load(name)
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 6, 6), size, mode="bicubic").clamp(0, 1)
    pixels = ((255 * smooth).round() / 255).requires_grad_()
    found = reward.score_tensors(pixels, PROMPTS[:2])
    exact = reward.score(list(pixels), PROMPTS[:2])
    tolerance = 1e-4 if size == (64, 64) else 0.02
    scale = reward.info.range[1]
    assert torch.allclose(found / scale, exact / scale, rtol=0, atol=tolerance)
    (gradient,) = torch.autograd.grad(found.sum(), pixels)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    assert reward.info.differentiable


def test_pickscore_has_every_published_scale(load):
    cosine, logit, div26, prob = (load("pickscore", output=o) for o in ("cosine", "logit", "div26", "prob"))
    values = cosine.score(PICTURES, PROMPTS)
    tau = logit.info.pair_scale * logit.info.range[1]
    assert tau == pytest.approx(np.exp(3.0), rel=1e-5)
    assert torch.allclose(logit.score(PICTURES, PROMPTS), tau * values, atol=1e-4)
    assert torch.allclose(div26.score(PICTURES, PROMPTS), tau * values / 26, atol=1e-5)
    shared = prob.score(PICTURES, PROMPTS)  # the first and the third picture share a prompt
    assert shared[1] == 1 and shared[3] == 1 and float(shared[0] + shared[2]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clip", {}),
        ("clip_score", {}),
        ("pickscore", {}),
        ("pickscore", {"output": "cosine"}),
        ("pickscore", {"output": "div26"}),
        ("hps", {}),
        ("hps", {"multiply_100": True}),
    ],
)
def test_the_pair_scale_gives_the_models_own_probability(load, name, options):
    reward = load(name, **options)
    first, second = (reward.score([picture], ["a"]) for picture in PICTURES[:2])
    found = rewards.preference_probability(reward.info, first, second)
    encoder = reward.encoder
    cosine = {"clip": "cosine", "clip_score": "cosine", "pickscore": "cosine"}.get(name)
    plain = load(name, output=cosine) if cosine else load(name)
    tau = encoder.logit_scale
    logits = tau * torch.stack([plain.score([picture], ["a"]) for picture in PICTURES[:2]])
    assert torch.allclose(found, logits.softmax(dim=0)[0], atol=1e-5)


def test_a_reward_without_a_probability_says_so(load):
    with pytest.raises(ConfigError, match="defines no probability"):
        rewards.preference_probability(load("pickscore", output="prob").info, torch.zeros(1), torch.zeros(1))


def test_versions_tell_scales_and_weights_apart(load, hps_folder, tmp_path):
    import shutil

    assert load("pickscore").info.version != load("pickscore", output="cosine").info.version
    copy = Path(shutil.copytree(hps_folder, tmp_path / "copy"))
    assert rewards.load("hps", str(copy)).info.version == load("hps").info.version
    (copy / "open_clip_config.json").write_text((copy / "open_clip_config.json").read_text() + "\n")
    assert rewards.load("hps", str(copy)).info.version != load("hps").info.version


def test_stock_libraries_load_the_folders_and_agree(load, clip_folder, hps_folder):
    import open_clip
    from transformers import CLIPModel

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{hps_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{hps_folder}")(PROMPTS)
    pixels = torch.stack([preprocess(Image.fromarray(picture)) for picture in PICTURES])
    with torch.no_grad():
        model.eval()
        images, texts = model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
        clip = CLIPModel.from_pretrained(clip_folder).eval()
        encoder = load("clip").encoder
        logits = clip(
            pixel_values=encoder.preprocess([Image.fromarray(PICTURES[0])]),
            input_ids=torch.tensor([[2, 3, 97, 1]]),
        )
    assert torch.allclose((images * texts).sum(dim=1), load("hps").score(PICTURES, PROMPTS), atol=1e-5)
    assert logits.logits_per_image.shape == (1, 1)


# ---------------------------------------------------------------- the oracle


def test_the_oracle_counts_the_facts_of_its_own_renders():
    chosen = captions("seen")[:20]
    pictures = [render(caption, np.random.default_rng(i)) for i, caption in enumerate(chosen)]
    sentences = [str(caption) for caption in chosen]
    assert rewards.load("oracle").score(pictures, sentences).tolist() == [6.0] * 20
    assert rewards.load("oracle", output="all").score(pictures, sentences[1:] + sentences[:1]).max() < 1
    assert rewards.load("oracle").info.range == (0.0, 6.0) and rewards.load("oracle").score([], []).shape == (0,)


def test_the_oracle_reads_clips_of_the_moving_shapes_beside_pictures_of_the_still_ones():
    moving, still = moving_captions("seen")[:6], captions("seen")[0]
    clips = [Clip(render_clip(caption, np.random.default_rng(i)), 8) for i, caption in enumerate(moving)]
    picture = render(still, np.random.default_rng(0))
    oracle, sentences = rewards.load("oracle"), [*map(str, moving), str(still)]
    assert oracle.score([*clips, picture], sentences).tolist() == [5.0] * 6 + [6.0]
    assert oracle.info.takes("video") and oracle.info.takes("image") and not oracle.info.takes("text")
    other = replace(moving[0], direction=next(d for d in DIRECTIONS if d != moving[0].direction))
    assert oracle.score(clips[:1], [str(other)]).item() == 4.0
    assert rewards.load("oracle", output="all").score(clips[:2], [str(other), sentences[1]]).tolist() == [0.0, 1.0]

    told = oracle.score_aspects([clips[0], picture], [str(other), str(still)])
    assert {name: told[name][0].item() for name in MOTION_FACTS} == {name: name != "direction" for name in MOTION_FACTS}
    assert told["relation"].tolist()[1] == 1.0 and told["relation"].isnan().tolist() == [True, False]
    assert told["dynamic_degree"][0] > 0.5 and told["steady_light"][0] == 1.0 and told["steady_light"][1].isnan()


def test_the_oracle_refuses_what_it_cannot_read():
    oracle = rewards.load("oracle")
    with pytest.raises(DataError, match="not a caption of the moving shapes"):
        oracle.score([np.zeros((8, 32, 32, 3), dtype=np.uint8)], [str(captions("seen")[0])])
    with pytest.raises(DataError, match="clips of 32 x 32 pixels and two frames or more, got"):
        oracle.score([np.zeros((8, 64, 64, 3), dtype=np.uint8)], [str(moving_captions("seen")[0])])
    with pytest.raises(DataError, match="not a caption of the shapes world"):
        oracle.score(PICTURES[:1], ["a photo of a cat"])
    with pytest.raises(DataError, match="64 x 64"):
        oracle.score([np.zeros((32, 32, 3), dtype=np.uint8)], [str(captions("seen")[0])])
    with pytest.raises(ConfigError, match="takes no path"):
        rewards.load("oracle", "folder")


# ---------------------------------------------------------------- the judge of the words world


def test_the_judge_scores_answers():
    asked = instructions("seen", 20)
    prompts, right = [str(one) for one in asked], [one.answer for one in asked]
    judge = rewards.load("words")
    assert judge.score(right, prompts).tolist() == [1.0] * 20
    half = [answer.swapcase() for answer in right]
    assert judge.score(half, prompts).tolist() == pytest.approx([5 / 6] * 20)
    assert rewards.load("words", output="right").score([right[0], half[1]], prompts[:2]).tolist() == [1.0, 0.0]
    better = rewards.preference_probability(judge.info, torch.ones(1), torch.full((1,), 5 / 6))
    assert better.item() == pytest.approx(1 / (1 + math.exp(-2)))


def test_the_judge_refuses_what_it_cannot_read():
    judge = rewards.load("words")
    with pytest.raises(DataError, match="not an instruction of the words world"):
        judge.score(["ant ."], ["a photo of an ant"])
    with pytest.raises(DataError, match="scores texts, item 0 is an image"):
        judge.score([np.zeros((64, 64, 3), dtype=np.uint8)], [str(instructions("seen", 1)[0])])
    with pytest.raises(ShapeError, match="1 items but 2 prompts"):
        judge.score(["ant ."], ["a", "b"])
    with pytest.raises(ConfigError, match="takes no path"):
        rewards.load("words", "folder")


# ---------------------------------------------------------------- user mistakes


@pytest.mark.parametrize(
    ("name", "path", "options", "message"),
    [
        ("pikscore", None, {}, "unknown reward 'pikscore'; did you mean 'pickscore'"),
        ("hps_v22", None, {}, "did you mean 'hps_v2"),
        (
            "pickscore",
            None,
            {},
            "needs a path: the hub id 'yuvalkirstain/PickScore_v1', a folder or 'bundled:shapes-pickscore'; it reads",
        ),
        (
            "hps",
            None,
            {},
            "needs a path: the hub id 'xswu/HPSv2', .*'bundled:shapes-hps'; it reads HPS_v2.1_compressed.pt",
        ),
        ("hps_v2", None, {}, "it reads HPS_v2_compressed.pt of xswu/HPSv2 .licence: Apache-2.0."),
        ("hps", ".", {"version": "v3"}, "version must be one of v2, v2.1, got 'v3'"),
        ("hps", ".", {"version": ["v2"]}, "version must be one of v2, v2.1, got"),
        ("hps", "xswu/HPSv2", {"architecture": 3}, "architecture: "),
        ("pickscore", ".", {"outptu": "logit"}, "unknown option 'outptu'; did you mean 'output'"),
        ("jpeg", None, {"x": 1}, "unknown option 'x'; known: output, calibration"),
        ("jpeg", None, {"calibraton": "c.json"}, "unknown option 'calibraton'; did you mean 'calibration'"),
        ("pickscore", ".", {"output": "softmax"}, "output: must be one of logit, .*, got 'softmax'"),
        ("pickscore", ".", {"micro_batch": 0}, "micro_batch: .* got 0"),
        ("clip", ".", {"output": "logit", "device": 3}, "output: .*; device: .*"),
        ("clip", "./nowhere", {}, "nowhere: no such file or folder"),
        ("clip", "bundled:shapes-klip", {}, "unknown bundled model 'shapes-klip'"),
        ("hps", "xswu/HPSv2", {}, "is a pickle, which may run code; pass allow_pickle=true"),
    ],
)
def test_mistakes_are_one_clear_line(name, path, options, message):
    with pytest.raises(DiffprefError, match=message) as caught:
        rewards.load(name, path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", LEARNED)
def test_a_folder_that_is_no_model_is_refused(name, tmp_path):
    with pytest.raises(ModelError):
        rewards.load(name, str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(ModelError) as caught:
        rewards.load(name, str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("pickscore", "weight"),
        ("pickscore", "tokenizer.json"),
        ("pickscore", "preprocessor_config.json"),
        ("hps", "weight"),
        ("hps", "tokenizer.json"),
    ],
)
def test_a_model_with_a_part_missing_is_refused(clip_folder, hps_folder, tmp_path, name, missing):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(clip_folder if name == "pickscore" else hps_folder, tmp_path / "model"))
    if missing == "weight":
        (file,) = folder.glob("*.safetensors")
        state = load_file(file)
        del state["text_projection.weight" if name == "pickscore" else "text_projection"]
        save_file(state, file, metadata={"format": "pt"})
    else:
        next(folder.glob(missing)).unlink()
    with pytest.raises(ModelError) as caught:
        rewards.load(name, str(folder))
    assert "\n" not in str(caught.value)


class Malicious:
    """Runs code when it is unpickled carelessly."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", LEARNED)
def test_pickled_weights_are_refused_and_never_run(load, clip_folder, hps_folder, name, tmp_path):
    import shutil

    source = hps_folder if name == "hps" else clip_folder
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    (weights,) = folder.glob("*.safetensors")
    weights.unlink()
    pickled = folder / ("open_clip_pytorch_model.bin" if name == "hps" else "pytorch_model.bin")
    torch.save({"state_dict": Malicious(tmp_path / "marker")}, pickled)
    with pytest.raises(ModelError, match=r"pickled weights only \(.*\), which may run code"):
        rewards.load(name, str(folder))
    with pytest.raises(ModelError):
        rewards.load(name, str(folder), allow_pickle=True)
    assert not (tmp_path / "marker").exists()


def test_pickled_weights_load_when_trusted(load, hps_folder, tmp_path):
    import shutil

    from safetensors.torch import load_file

    folder = Path(shutil.copytree(hps_folder, tmp_path / "model"))
    torch.save(load_file(folder / "open_clip_model.safetensors"), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_model.safetensors").unlink()
    found = rewards.load("hps", str(folder), allow_pickle=True).score(PICTURES, PROMPTS)
    assert torch.equal(found, load("hps").score(PICTURES, PROMPTS))


# ---------------------------------------------------------------- the house


def test_a_second_reward_is_one_registration(monkeypatch):
    class Brightness:
        @property
        def info(self) -> RewardInfo:
            return RewardInfo("test_brightness", "1", "Apache-2.0", (0.0, 1.0), needs_prompt=False)

        def score(self, media: Any, prompts: Any, metadata: Any = None) -> torch.Tensor:
            return torch.tensor([np.asarray(item).mean() / 255 for item in media], dtype=torch.float32)

    def factory(path: str | None = None, *, gain: float = 1.0) -> Reward:
        return Brightness()

    for table in ("_things", "_origins"):  # other tests list what is there
        monkeypatch.setattr(rewards.registry, table, dict(getattr(rewards.registry, table)))
    rewards.registry.register("test_brightness")(factory)
    reward = rewards.load("test_brightness", gain=2.0)
    assert isinstance(reward, Reward) and reward.score(PICTURES, PROMPTS).shape == (5,)
    with pytest.raises(ConfigError, match="unknown option 'gian'; did you mean 'gain'"):
        rewards.load("test_brightness", gian=2.0)


def test_a_second_import_copy_is_refused():
    code = "import importlib.util as u; s = u.spec_from_file_location('rewards', 'rewards/__init__.py');"
    code += "s.loader.exec_module(u.module_from_spec(s))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "a second copy beside the installed one" in done.stderr
