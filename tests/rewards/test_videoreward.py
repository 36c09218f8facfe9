"""VideoReward: computed again the way its authors' code does, with the LoRA beside the weights, and what is special."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reward_cases import clips, sentences
from safetensors.torch import save_file
from tiny_reward_heads import VIDEO_CONFIG, VIDEO_TOKENS, before_4_52, plain, save_videoreward, tiny_videoreward

from diffpref import rewards
from diffpref.core.contracts import Clip
from diffpref.core.errors import ConfigError, DataError, ModelError
from diffpref.rewards._frames import at_rate
from diffpref.rewards._qwen2_vl import resized_clip
from diffpref.rewards.videoreward import MIN_PIXELS, WORDS

MEAN, STD = torch.tensor([3.0, 1.0, -2.0]), torch.tensor([2.0, 1.5, 0.5])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFPREF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_videoreward(tmp_path_factory.mktemp("videoreward"))


@pytest.fixture(scope="module")
def reward(folder: Path) -> Any:
    return rewards.load("videoreward", str(folder), allow_pickle=True)


def videos(count: int, frames: int = 6) -> list[Clip]:
    return [Clip(one, 8.0) for one in clips(count, size=(24, 40), frames=frames)]


def rewritten(folder: Path, new: Path, change: Callable[[dict[str, Any]], Any], config: Any = None) -> Path:
    """Copy a checkpoint as safetensors with some tensors changed."""
    state = torch.load(folder / "checkpoint-11352" / "model.pth", weights_only=True)
    change(state)
    (new / "checkpoint-1").mkdir()
    save_file(state, new / "checkpoint-1" / "model.safetensors")
    (new / "model_config.json").write_text(json.dumps(config or VIDEO_CONFIG))
    return new


def official(folder: Path, outputs: int, clip: Clip, prompt: str) -> torch.Tensor:
    """Return the (3,) logits of ``Qwen2VLRewardModelBT.forward``: embeddings go in, no places, the LoRA is live."""
    from transformers import AutoProcessor

    wrapped = tiny_videoreward(folder, outputs)
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.add_special_tokens({"additional_special_tokens": VIDEO_TOKENS})
    content = [{"type": "video"}, {"type": "text", "text": WORDS.format(prompt=prompt)}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    frames = torch.from_numpy(clip.frames[at_rate("", 0, clip, 2.0)]).permute(0, 3, 1, 2)
    size = {"shortest_edge": MIN_PIXELS, "longest_edge": 200704}
    batch = processor(text=[text], videos=[frames], return_tensors="pt", size=size, do_sample_frames=False)
    network = wrapped.base_model.model
    with torch.no_grad():
        embeds = network.model.language_model.embed_tokens(batch["input_ids"])
        seen = network.model.get_video_features(batch["pixel_values_videos"], batch["video_grid_thw"]).pooler_output
        mask = (batch["input_ids"] == network.config.video_token_id)[..., None].expand_as(embeds)
        embeds = embeds.masked_scatter(mask, torch.cat(list(seen)))
        logits = network.rm_head(network.model.language_model(inputs_embeds=embeds).last_hidden_state)
    ids = processor.tokenizer.convert_tokens_to_ids(VIDEO_TOKENS)
    rows = logits[torch.isin(batch["input_ids"], torch.tensor(ids))]
    return rows.diagonal() if outputs == 3 else rows[:, 0]


@pytest.mark.parametrize("outputs", [1, 3])
def test_scores_are_what_the_official_code_computes(tmp_path: Path, outputs: int) -> None:
    found = rewards.load("videoreward", str(save_videoreward(tmp_path, outputs)), allow_pickle=True)
    clip = videos(1)[0]
    expected = (official(tmp_path, outputs, clip, "a {red} circle") - MEAN) / STD
    aspects = found.score_aspects([clip], ["a {red} circle"])
    assert list(aspects) == ["visual_quality", "motion_quality", "text_alignment"]
    assert torch.allclose(torch.cat(list(aspects.values())), expected, atol=1e-4)
    assert torch.allclose(found.score([clip], ["a {red} circle"]), expected.sum(), atol=3e-4)


def test_picture_and_motion_are_judged_without_the_prompt(reward: Any) -> None:
    clip = videos(1)[0]
    one, other = (reward.score_aspects([clip], [prompt]) for prompt in ("a cat", "a much longer prompt about two dogs"))
    for aspect in ("visual_quality", "motion_quality"):
        assert torch.allclose(one[aspect], other[aspect], atol=1e-5)
    assert abs(one["text_alignment"] - other["text_alignment"]) > 1e-3


def test_the_order_of_frames_and_the_speed_change_the_score(reward: Any) -> None:
    clip = videos(1, frames=12)[0]
    scores = reward.score([clip, Clip(clip.frames[::-1], 8.0), Clip(clip.frames, 2.0)], ["a cat"] * 3)
    assert len({round(score, 3) for score in scores.tolist()}) == 3


def test_speed_and_frames_must_be_there(reward: Any) -> None:
    clip = videos(1)[0]
    for fps in (None, 0.0, float("inf")):
        with pytest.raises(DataError, match=r"2 frames a second, item 1 has fps .*; give Clip\(frames, fps\)"):
            reward.score([clip, Clip(clip.frames, fps)], ["a", "b"])
    with pytest.raises(DataError, match="item 0: a video of one frame"):
        reward.score([Clip(clip.frames[:1], 8.0)], ["a"])
    with pytest.raises(DataError, match=r"prompt 0 holds <\|TA_reward\|>"):
        reward.score([clip], ["say <|TA_reward|>"])


@pytest.mark.parametrize(
    ("size", "expected"), [((24, 40), (252, 420)), ((720, 1280), (336, 588)), ((400, 400), (392, 392))]
)
def test_frames_are_resized_as_published(size: tuple[int, int], expected: tuple[int, int]) -> None:
    from transformers import Qwen2VLVideoProcessor

    frames = clips(1, size=size, frames=2)[0]
    ours = resized_clip("videoreward", 0, frames, MIN_PIXELS, 200704)
    assert ours.shape == (2, *expected, 3) and ours.dtype == np.uint8
    there = Qwen2VLVideoProcessor(size={"shortest_edge": MIN_PIXELS, "longest_edge": 200704})
    options = {"return_tensors": "pt", "do_sample_frames": False, "cap_pixels_per_frame": False}
    theirs = there(videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)], **options)
    again = there(videos=[torch.from_numpy(ours).permute(0, 3, 1, 2)], do_resize=False, **options)
    assert torch.equal(theirs["video_grid_thw"], again["video_grid_thw"])
    assert (theirs["pixel_values_videos"] - again["pixel_values_videos"]).abs().max() < 0.02


def test_a_checkpoint_that_is_an_adapter_is_read_over_its_base(folder: Path, tmp_path: Path, reward: Any) -> None:
    state = torch.load(folder / "checkpoint-11352" / "model.pth", weights_only=True)
    lora = {name.replace(".default.", "."): tensor for name, tensor in state.items() if "lora_" in name}
    moved = ("visual.", "embed_tokens.", "rm_head.")  # what trains beside the LoRA
    rest = {name: tensor for name, tensor in state.items() if any(part in name for part in moved)}
    there, base = tmp_path / "adapter", tmp_path / "base"
    (there / "checkpoint-7").mkdir(parents=True)
    save_file(lora, there / "checkpoint-7" / "adapter_model.safetensors")
    torch.save(rest, there / "checkpoint-7" / "non_lora_state_dict.pth")
    (there / "model_config.json").write_text(json.dumps(VIDEO_CONFIG))
    wrapped = tiny_videoreward(base)
    first = {n.replace(".base_layer.", "."): t for n, t in plain(wrapped.base_model.model.state_dict()).items()}
    first = {n: t for n, t in first.items() if "lora_" not in n and "rm_head" not in n}
    first = {n: torch.zeros_like(t) if any(part in n for part in moved) else t for n, t in first.items()}
    save_file(before_4_52(first), base / "model.safetensors")
    found = rewards.load("videoreward", str(there), base=str(base), allow_pickle=True)
    assert torch.allclose(found.score(videos(2), sentences(2)), reward.score(videos(2), sentences(2)), atol=1e-4)
    (there / "checkpoint-7" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model.pth, nor adapter_model.safetensors"):
        rewards.load("videoreward", str(there), base=str(base), allow_pickle=True)


def test_a_merged_checkpoint_needs_no_lora(folder: Path, tmp_path: Path) -> None:
    config = {**VIDEO_CONFIG, "peft_lora_config": {"lora_enable": False}}

    def drop(state: dict[str, Any]) -> None:
        for name in [name for name in state if "lora_" in name]:
            del state[name]

    there = rewritten(folder, tmp_path, drop, config)
    found = rewards.load("videoreward", str(there), base=str(folder))
    assert torch.isfinite(found.score(videos(1), ["a"])).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("base_model.model.rm_head.weight"), "lacks 1 tensors, such as weight"),
        (
            lambda state: state.update({"base_model.model.rm_head.bias": torch.zeros(1)}),
            "unknown tensors, such as bias",
        ),
        (lambda state: state.update({"base_model.model.rm_head.weight": torch.zeros(2, 32)}), r"weight is \(2, 32\)"),
        (lambda state: state.pop("base_model.model.visual.merger.ln_q.bias"), "lacks 1 tensors, such as visual"),
        (lambda state: state.pop(next(name for name in state if "lora_A" in name)), "lacks its other half"),
        (lambda state: state.pop(next(name for name in state if "base_layer.weight" in name)), "lacks its layer"),
    ],
)
def test_another_layout_is_refused(folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        rewards.load("videoreward", str(rewritten(folder, tmp_path, change)), base=str(folder))


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("peft_lora_config", {"lora_enable": True, "lora_r": 8, "lora_alpha": 8}, "expected rank 8"),
        ("peft_lora_config", {"lora_enable": False}, "unknown tensors, such as language_model.layers"),
        ("model_config", {"use_special_tokens": False}, "expected use_special_tokens true"),
        ("data_config", {"sample_type": "multi_pts"}, "sample_type 'uniform', got True and 'multi_pts'"),
        ("data_config", None, "not the config of a VideoReward"),
        ("inference_config", {"VQ_mean": 1.0}, "not the config of a VideoReward: KeyError"),
    ],
)
def test_another_config_is_refused(folder: Path, tmp_path: Path, part: str, value: Any, message: str) -> None:
    there = rewritten(folder, tmp_path, lambda state: None, {**VIDEO_CONFIG, part: value})
    with pytest.raises(ModelError, match=message):
        rewards.load("videoreward", str(there), base=str(folder))


def test_a_fixed_number_of_frames_and_raw_scores(folder: Path, tmp_path: Path, reward: Any) -> None:
    data = {**VIDEO_CONFIG["data_config"], "num_frames": 4}
    config = {**VIDEO_CONFIG, "data_config": data, "inference_config": None}
    found = rewards.load("videoreward", str(rewritten(folder, tmp_path, lambda state: None, config)), base=str(folder))
    clip = videos(1)[0]  # 6 frames at 8 a second: four of them either way
    raw = torch.stack(list(found.score_aspects([clip.frames], ["a"]).values()), dim=1)
    scaled = torch.stack(list(reward.score_aspects([clip], ["a"]).values()), dim=1)
    assert torch.allclose((raw - MEAN) / STD, scaled, atol=1e-4)
    assert found.info.preprocessing.startswith("4-") and reward.info.preprocessing.startswith("2fps-")


def test_a_pickle_needs_leave_and_the_prompt_its_place(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="allow_pickle=true"):
        rewards.load("videoreward", str(folder))
    file = tmp_path / "words.txt"
    file.write_text("{prompt} <|VQ_reward|> <|MQ_reward|> <|TA_reward|>", encoding="utf-8")
    with pytest.raises(ConfigError, match="in this order"):
        rewards.load("videoreward", str(folder), template=str(file), allow_pickle=True)
