"""VideoScore: computed again the way its authors' code does, and what is special to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reward_cases import clips, sentences
from safetensors.torch import load_file, save_file
from tiny_reward_heads import save_videoscore, tiny_videoscore, videoscore_processor

from diffpref import rewards
from diffpref.core.contracts import AspectReward
from diffpref.core.errors import ConfigError, DataError, ModelError
from diffpref.rewards.videoscore import ASPECTS, WORDS

SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_videoscore(tmp_path_factory.mktemp("videoscore"))


@pytest.fixture(scope="module")
def reward(folder: Path) -> Any:
    return rewards.load("videoscore", str(folder), frames=4)


def rewritten(folder: Path, new: Path, **changed: torch.Tensor | None) -> Path:
    """Copy a checkpoint with some tensors (dots as ``__``) changed, or left out where they are None."""
    for file in folder.iterdir():
        (new / file.name).write_bytes(file.read_bytes())
    state = {name: tensor for shard in SHARDS for name, tensor in load_file(folder / shard).items()}
    state |= {name.replace("__", "."): tensor for name, tensor in changed.items()}
    (new / SHARDS[1]).unlink()
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, new / SHARDS[0])
    return new


def official(video: np.ndarray, prompt: str) -> torch.Tensor:
    """Return the (5,) scores as the authors' example and Mantis' ``Idefics2ForSequenceClassification`` compute them."""
    processor = videoscore_processor()
    network, head = tiny_videoscore(processor.tokenizer)
    total, most = len(video), 4
    places = np.arange(0, total, total / most).astype(int) if total > most else np.arange(total)
    pictures = [Image.fromarray(video[place]) for place in places]
    text = WORDS.format(prompt=prompt) + "<image> " * len(pictures)
    batch = processor(text=text, images=pictures, return_tensors="pt")
    with torch.no_grad():
        logits = head(network(**batch).last_hidden_state)
    assert processor.tokenizer.pad_token_id not in batch["input_ids"]  # so the place is the last
    return logits[0, -1]


@pytest.mark.parametrize("frames", [3, 4, 6, 11])
def test_the_aspects_are_what_the_official_code_computes(reward: Any, frames: int) -> None:
    video, prompt = clips(1, size=(24, 40), frames=frames)[0], "a {red} circle"
    expected = official(video, prompt)
    found = reward.score_aspects([video], [prompt])
    assert isinstance(reward, AspectReward) and tuple(found) == ASPECTS
    assert torch.allclose(torch.cat(list(found.values())), expected, atol=1e-5)
    assert torch.allclose(reward.score([video], [prompt]), expected.mean(), atol=1e-5)


def test_frames_keep_their_aspect(reward: Any) -> None:
    seen: list[Any] = []
    network = reward.model.network
    handle = network.vision_model.register_forward_pre_hook(lambda _, __, given: seen.append(given), with_kwargs=True)
    reward.score([clips(1, size=(100, 50), frames=2)[0]], ["a"])
    handle.remove()
    assert seen[0]["pixel_values"].shape == (2, 3, 70, 35)  # the long side as large as allowed
    assert seen[0]["patch_attention_mask"].shape == (2, 5, 2)


def test_the_order_and_the_number_of_frames_matter(folder: Path, reward: Any) -> None:
    video = clips(1, size=(24, 40), frames=8)[0]
    scores = reward.score([video, video[::-1], video[:4]], ["a"] * 3)
    assert len({round(score, 5) for score in scores.tolist()}) == 3
    more = rewards.load("videoscore", str(folder), frames=8)
    assert abs(more.score([video], ["a"]) - scores[0]) > 1e-5 and more.info.version != reward.info.version


def test_the_version_says_how_many_frames(folder: Path) -> None:
    for version, frames in (("v1", 16), ("v1.1", 48)):
        found: Any = rewards.load("videoscore", str(folder), version=version)
        assert found.info.licence == {"v1": "Apache-2.0", "v1.1": "MIT"}[version]
        assert found.frames == frames and f"+{frames}-frames+own-template-" in found.info.version
    assert found.info.preprocessing == "at-most-48"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"score__bias": None}, "lacks 1 tensors, such as bias"),
        ({"model__connector__perceiver_resampler__latents": None}, "lacks 1 tensors, such as connector"),
        ({"lm_head__weight": torch.zeros(1)}, "unknown tensors, such as lm_head.weight"),
        ({"score__weight": torch.zeros(4, 32)}, r"weight is \(4, 32\), expected \(5, 32\)"),
    ],
)
def test_another_layout_is_refused(folder: Path, tmp_path: Path, changed: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        rewards.load("videoscore", str(rewritten(folder, tmp_path, **changed)))


def test_buffers_of_older_versions_are_not_read(folder: Path, tmp_path: Path) -> None:
    old = {"model__text_model__layers__0__self_attn__rotary_emb__inv_freq": torch.zeros(4)}
    assert rewards.load("videoscore", str(rewritten(folder, tmp_path, **old))).info.name == "videoscore"


def test_words_and_prompts_that_cannot_be_asked(folder: Path, tmp_path: Path, reward: Any) -> None:
    file = tmp_path / "words.txt"
    file.write_text("Rate {prompt}: <image>", encoding="utf-8")
    with pytest.raises(ConfigError, match="the template holds <image>"):
        rewards.load("videoscore", str(folder), template=str(file))
    file.write_text("Rate {text_prompt}: ", encoding="utf-8")
    other = rewards.load("videoscore", str(folder), template=str(file), frames=4)
    media, prompts = clips(2, size=(24, 40)), sentences(2)
    assert (other.score(media, prompts) - reward.score(media, prompts)).abs().min() > 1e-5
    with pytest.raises(DataError, match="prompt 1 holds <image>"):
        reward.score(media, ["a", "an <image>"])
    with pytest.raises(DataError, match=r"question 1: .* tokens"):
        reward.score(media, ["a", "long " * 500])
