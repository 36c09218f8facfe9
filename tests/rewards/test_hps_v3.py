"""HPSv3: computed again the way its authors' code does, and what is special to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reward_cases import pictures, sentences
from safetensors.torch import load_file, save_file
from tiny_reward_heads import before_4_52, plain, ranknet, save_hps_v3, tiny_qwen2_vl

from diffpref import rewards
from diffpref.core.contracts import Judge
from diffpref.core.errors import ConfigError, DataError, ModelError, ShapeError
from diffpref.objectives.pair_probability import gaussian_preference
from diffpref.rewards._qwen2_vl import resized_picture
from diffpref.rewards._vlm import Question
from diffpref.rewards.hps_v3 import PIXELS, WORDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_hps_v3(tmp_path_factory.mktemp("hps_v3"))


@pytest.fixture(scope="module")
def reward(folder: Path) -> Any:
    return rewards.load("hps_v3", str(folder))


def official(folder: Path, picture: np.ndarray, prompt: str) -> torch.Tensor:
    """Return mu and log sigma as ``Qwen2VLRewardModelBT.forward`` computes them: embeddings go in, no places."""
    from transformers import AutoProcessor

    network = tiny_qwen2_vl(folder, ["<|Reward|>"])
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<|Reward|>"]})
    content = [{"type": "image"}, {"type": "text", "text": WORDS.format(prompt=prompt)}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    shown = resized_picture("", 0, Image.fromarray(picture), PIXELS)
    batch = processor(
        text=[text], images=[shown], return_tensors="pt", size={"shortest_edge": 1, "longest_edge": 10**7}
    )
    model = network.model
    with torch.no_grad():
        embeds = model.language_model.embed_tokens(batch["input_ids"])
        seen = torch.cat(list(model.get_image_features(batch["pixel_values"], batch["image_grid_thw"]).pooler_output))
        mask = (batch["input_ids"] == model.config.image_token_id)[..., None].expand_as(embeds)
        hidden = model.language_model(inputs_embeds=embeds.masked_scatter(mask, seen)).last_hidden_state
        logits = ranknet(hidden.shape[-1])(hidden)
    return logits[batch["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<|Reward|>")].flatten()


def test_the_score_is_what_the_official_code_computes(folder: Path, reward: Any) -> None:
    seen, prompts = [pictures(1, (40, 90))[0], pictures(1, (70, 30))[0]], ["a {red} circle", "two cats"]
    expected = torch.stack([official(folder, *pair) for pair in zip(seen, prompts, strict=True)])
    mean, log_std = reward.moments(seen, prompts)
    assert torch.allclose(mean, expected[:, 0], atol=1e-4) and torch.allclose(log_std, expected[:, 1], atol=1e-4)
    assert torch.equal(reward.score(seen, prompts), mean)


@pytest.mark.parametrize(
    ("size", "expected"), [((1000, 500), (616, 308)), ((100, 100), (448, 448)), ((9, 30), (252, 840))]
)
def test_a_picture_keeps_its_aspect_within_one_area(size: tuple[int, int], expected: tuple[int, int]) -> None:
    from transformers import Qwen2VLImageProcessor

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    ours = resized_picture("hps_v3", 0, picture, PIXELS)
    assert (ours.height, ours.width) == expected
    there = Qwen2VLImageProcessor(size={"shortest_edge": PIXELS, "longest_edge": PIXELS})
    theirs = there(images=[picture], return_tensors="pt")
    again = there(images=[ours], return_tensors="pt", do_resize=False)
    assert torch.equal(theirs["image_grid_thw"], again["image_grid_thw"])
    assert (theirs["pixel_values"] - again["pixel_values"]).abs().max() < 0.05  # PIL rounds to whole numbers, twice


def test_names_of_both_generations_of_transformers_are_read(tmp_path: Path, reward: Any) -> None:
    new = rewards.load("hps_v3", str(save_hps_v3(tmp_path, legacy=False)))
    assert torch.equal(new.score(pictures(2), sentences(2)), reward.score(pictures(2), sentences(2)))
    assert new.info.version != reward.info.version  # another file


def test_the_older_names_are_those_that_transformers_still_writes(tmp_path: Path) -> None:
    network = tiny_qwen2_vl(tmp_path, ["<|Reward|>"])
    network.save_pretrained(tmp_path / "saved")
    written = load_file(tmp_path / "saved" / "model.safetensors")
    assert set(before_4_52(plain(network.state_dict()))) == set(written)


def test_a_file_alone_reads_the_rest_from_the_base(folder: Path, tmp_path: Path, reward: Any) -> None:
    file = tmp_path / "HPSv3.safetensors"
    file.write_bytes((folder / file.name).read_bytes())
    found = rewards.load("hps_v3", str(file), base=str(folder))
    assert torch.equal(found.score(pictures(1), [""]), reward.score(pictures(1), [""]))
    with pytest.raises(ModelError, match="holds no processor"):
        rewards.load("hps_v3", str(file), base=str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("rm_head.3.bias"), "lacks 1 tensors, such as 3.bias"),
        (lambda state: state.pop("visual.blocks.0.attn.qkv.weight"), "lacks 1 tensors, such as visual.blocks"),
        (
            lambda state: state.update({"model.extra": torch.zeros(1)}),
            "1 unknown tensors, such as language_model.extra",
        ),
        (
            lambda state: state.update({"rm_head.5.weight": torch.zeros(3, 16)}),
            r"5.weight is \(3, 16\), expected \(2, 16\)",
        ),
        (lambda state: state.pop("model.embed_tokens.weight"), "lacks the embeddings"),
        (lambda state: state.update({"model.embed_tokens.weight": torch.zeros(9, 32)}), "the tokenizer knows"),
    ],
)
def test_another_layout_is_refused(folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    state = load_file(folder / "HPSv3.safetensors")
    change(state)
    save_file(state, tmp_path / "HPSv3.safetensors")
    with pytest.raises(ModelError, match=message):
        rewards.load("hps_v3", str(tmp_path), base=str(folder))


def test_the_head_over_the_vocabulary_is_not_needed(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "HPSv3.safetensors")
    del state["lm_head.weight"]
    save_file(state, tmp_path / "HPSv3.safetensors")
    assert rewards.load("hps_v3", str(tmp_path), base=str(folder)).info.name == "hps_v3"


def test_a_users_words_are_used_and_named(folder: Path, tmp_path: Path, reward: Any) -> None:
    file = tmp_path / "words.txt"
    file.write_text(WORDS.replace("{prompt}", "{text_prompt}"), encoding="utf-8")
    same = rewards.load("hps_v3", str(folder), template=str(file))
    assert torch.equal(same.score(pictures(1), ["a"]), reward.score(pictures(1), ["a"]))
    assert "+own-template-" in reward.info.version and "own-" not in same.info.version
    file.write_text(WORDS + " what follows the token is not seen by it", encoding="utf-8")
    longer = rewards.load("hps_v3", str(folder), template=str(file))
    assert torch.allclose(longer.score(pictures(1), ["a"]), reward.score(pictures(1), ["a"]), atol=1e-5)
    file.write_text("Rate {prompt}: <|Reward|>", encoding="utf-8")
    other = rewards.load("hps_v3", str(folder), template=str(file))
    assert abs(other.score(pictures(1), ["a"]) - reward.score(pictures(1), ["a"])) > 1e-4
    for text, message in [
        ("no place <|Reward|>", "needs {prompt} once"),
        ("{prompt}", r"needs {prompt}, <\|Reward\|>, once each"),
        ("<|Reward|> {prompt}", "in this order"),
    ]:
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            rewards.load("hps_v3", str(folder), template=str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        rewards.load("hps_v3", str(folder), template=str(tmp_path / "none.txt"))


def test_places_in_three_numbers_are_another_model(folder: Path, reward: Any) -> None:
    other = rewards.load("hps_v3", str(folder), positions="mrope")
    assert other.info.version == reward.info.version + "+mrope"
    assert abs(other.score(pictures(1), ["a"]) - reward.score(pictures(1), ["a"])) > 1e-4


def test_what_cannot_be_shown_or_asked_is_refused(reward: Any) -> None:
    with pytest.raises(DataError, match=r"item 1.*aspect ratio"):
        reward.score([*pictures(1), np.zeros((2, 500, 3), np.uint8)], ["a", "b"])
    for prompt in ("a <|Reward|> b", "<|image_pad|>"):
        with pytest.raises(DataError, match=r"prompt 1 holds <\|"):
            reward.score(pictures(2), ["a", prompt])
    assert torch.isfinite(reward.score(pictures(1), ["{prompt} {} {text_prompt}"])).all()


def test_a_question_without_the_token_has_no_score(reward: Any) -> None:
    for words in ("a", "a <|Reward|> b <|Reward|>"):
        with pytest.raises(DataError, match=r"does not hold <\|Reward\|> once each"):
            reward.heads.read([Question((words,))])


def test_it_judges_pairs_by_both_deviations(reward: Any) -> None:
    assert isinstance(reward, Judge) and reward.info.pair_scale is None
    first, second, prompts = pictures(4)[:2], pictures(4)[2:], sentences(2)
    wins = reward.compare(first, second, prompts)
    assert torch.allclose(wins + reward.compare(second, first, prompts), torch.ones(2), atol=1e-6)
    expected = gaussian_preference(*reward.moments(first, prompts), *reward.moments(second, prompts))
    assert torch.equal(wins, expected) and wins.dtype == torch.float32
    with pytest.raises(ShapeError, match="2 first items but 1 second"):
        reward.compare(first, second[:1], prompts)
