"""VQAScore: the arithmetic, CLIP-FlanT5's layout and numbers, any other model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_clip_t5 import save_clip_t5
from tiny_vlms import save_llava, save_qwen2_vl
from torch import Tensor
from transformers import CLIPVisionModel

from diffpref import rewards
from diffpref.core.errors import ConfigError, ModelError, ShapeError
from diffpref.rewards._answers import answer_probability, expected_value, geometric_mean_probability
from diffpref.rewards._clip_t5 import open_tower, square
from diffpref.rewards._vlm import question_tensors
from diffpref.rewards.vqascore import T5_TEMPLATE, TEMPLATE

GOLDEN = Path(__file__).parents[1] / "golden" / "rewards" / "vqascore_t5.json"
WIDE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 90, 3), dtype=np.uint8))
TALL = Image.fromarray(np.random.default_rng(4).integers(0, 256, (50, 20, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip_t5(tmp_path_factory.mktemp("clip_t5"))


# ------------------------------------------------------------ arithmetic


def test_the_answers_probability_is_that_of_the_official_code() -> None:
    case = json.loads(GOLDEN.read_text())
    logits = torch.tensor(case["inputs"]["decoder_logits(B,L,V)"], dtype=torch.float64)
    labels = torch.tensor(case["inputs"]["label_ids(Yes,</s>)"])
    expected = {name: torch.tensor(values, dtype=torch.float64) for name, values in case["expected"].items()}
    found = geometric_mean_probability(logits, labels)
    torch.testing.assert_close(found, expected["score"], rtol=0, atol=0.6e-10)
    found = answer_probability(logits[:, :1], labels[:, :1])
    torch.testing.assert_close(found, expected["p_yes_only"], rtol=0, atol=0.6e-10)


def test_probabilities_multiply_over_the_tokens_of_an_answer() -> None:
    logits, labels = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([[0, 4]] * 3)
    each = logits.softmax(-1)
    product = each[:, 0, 0] * each[:, 1, 4]
    torch.testing.assert_close(answer_probability(logits, labels), product)
    torch.testing.assert_close(geometric_mean_probability(logits, labels), product.sqrt())
    assert answer_probability(logits.bfloat16(), labels).dtype == torch.float32
    with pytest.raises(ShapeError, match="labels"):
        answer_probability(logits, labels[:, :1])


def test_an_expected_value_weighs_answers_among_themselves() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
    value, *shares = expected_value(logits, torch.tensor([1, 2]), torch.tensor([0.0, 10.0]), share=True)[0].tolist()
    assert value == pytest.approx(6.0) and shares == pytest.approx([0.4, 0.6])


# ------------------------------------------------------------ CLIP-FlanT5


@pytest.mark.parametrize("picture", [WIDE, TALL])
def test_a_picture_is_padded_to_a_square_of_the_mean_colour(picture: Image.Image) -> None:
    found = np.asarray(square(picture, (122, 116, 104)))
    side, (width, height) = max(picture.size), picture.size
    expected = np.zeros((side, side, 3), np.uint8) + np.array([122, 116, 104], np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    expected[top : top + height, left : left + width] = np.asarray(picture)
    assert np.array_equal(found, expected)
    assert square(Image.fromarray(expected), (0, 0, 0)).size == (side, side)


def independent(reward: Any, folder: Path, picture: Image.Image, prompt: str) -> Tensor:
    """The authors' forward pass, in other words: embeddings joined by hand, transformers' own loss of the answer."""
    from torchvision.transforms.functional import center_crop, resize, to_tensor

    asker = reward._probabilities
    model, tokenizer = asker.model, asker.tokenizer
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    colour = tuple(int(255 * value) for value in mean)
    side = max(picture.size)
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    pixels = to_tensor(center_crop(resize(canvas, 32, interpolation=3), 32))
    pixels = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    states = model.tower(pixel_values=pixels[None], output_hidden_states=True).hidden_states
    weights = load_file(next(folder.glob("model-*.safetensors")))
    seen = states[-2][:, 1:] @ weights["mm_projector.0.weight"].T + weights["mm_projector.0.bias"]
    seen = torch.nn.functional.gelu(seen) @ weights["mm_projector.2.weight"].T + weights["mm_projector.2.bias"]
    before, after = T5_TEMPLATE.text.replace("{prompt}", prompt).split("{image}")
    first, last = (torch.tensor(tokenizer(text).input_ids) for text in (before, after))
    assert first[-1] == last[-1] == tokenizer.eos_token_id
    inputs = torch.cat([weights["shared.weight"][first], seen[0], weights["shared.weight"][last]])[None]
    labels = torch.tensor([tokenizer("Yes").input_ids])
    out = model.language(inputs_embeds=inputs, labels=labels)
    logits = out.logits[..., : len(tokenizer)]
    return torch.exp(-torch.nn.functional.cross_entropy(logits[0], labels[0]))


def test_the_score_is_that_of_an_independent_forward_pass_on_pictures_that_are_no_squares(folder: Path) -> None:
    reward = rewards.load("vqascore", str(folder))
    found = reward.score([WIDE, TALL], ["a red cat", "nothing"])
    expected = [
        independent(reward, folder, picture, text) for picture, text in ((WIDE, "a red cat"), (TALL, "nothing"))
    ]
    assert torch.allclose(found, torch.stack(expected), rtol=2e-3)  # torchvision rounds the resized picture otherwise
    assert ((found > 0) & (found < 1)).all()


def test_the_head_is_scaled_only_where_it_is_the_embedding(folder: Path) -> None:
    model = rewards.load("vqascore", str(folder))._probabilities.model
    assert model.scale == 1.0
    assert not torch.equal(model.language.lm_head.weight, model.language.shared.weight)


def test_words_that_only_fill_a_round_number_do_not_count(folder: Path) -> None:
    asker = rewards.load("vqascore", str(folder))._probabilities
    assert asker.model.language.lm_head.weight.shape[0] == len(asker.tokenizer) + 3
    asker.model.language.lm_head.weight[-3:] = 0
    before = asker([T5_TEMPLATE.ask("a cat", WIDE).parts])
    asker.model.language.lm_head.weight[-3:] = 5
    assert torch.equal(before, asker([T5_TEMPLATE.ask("a cat", WIDE).parts]))


def test_what_the_tokenizer_does_not_know_is_hidden_as_the_authors_mask_hides_it(folder: Path) -> None:
    asker = rewards.load("vqascore", str(folder))._probabilities
    row = asker._row(*T5_TEMPLATE.ask("a ~ cat", WIDE).parts)
    unknown = asker.tokenizer.unk_token_id
    assert (row["after"] == unknown).sum() == 1
    labels = asker.labels[None]
    hidden = asker.model.logits(**row, labels=labels, unknown=unknown)
    other = {**row, "after": torch.where(row["after"] == unknown, torch.tensor(7), row["after"])}
    assert not torch.allclose(hidden, asker.model.logits(**other, labels=labels, unknown=unknown))
    assert not torch.allclose(hidden, asker.model.logits(**row, labels=labels, unknown=None))


def test_the_first_token_alone_is_the_mode_p_yes(folder: Path) -> None:
    both, first = (rewards.load("vqascore", str(folder), mode=mode) for mode in ("t5_geomean", "p_yes"))
    asker = both._probabilities
    row = asker._row(*T5_TEMPLATE.ask("a cat", WIDE).parts)
    logits = asker.model.logits(**row, labels=asker.labels[None], unknown=None)[0, :, : len(asker.tokenizer)]
    yes, end = (float(logits[place].softmax(-1)[label]) for place, label in enumerate(asker.labels))
    assert first.score([WIDE], ["a cat"]).item() == pytest.approx(yes, rel=1e-4)
    assert both.score([WIDE], ["a cat"]).item() == pytest.approx((yes * end) ** 0.5, rel=1e-4)


# ------------------------------------------------------------ its layout


def test_without_a_tower_the_published_shape_is_assumed(tmp_path: Path) -> None:
    config, processor, weights = open_tower(tmp_path, None, False)
    with torch.device("meta"):
        tower = CLIPVisionModel(config)
    assert weights == {} and processor.crop_size["height"] == 336 and processor.size["shortest_edge"] == 336
    shapes = {name.removeprefix("vision_model."): tuple(p.shape) for name, p in tower.named_parameters()}
    assert shapes["embeddings.position_embedding.weight"] == (24 * 24 + 1, 1024)
    assert shapes["encoder.layers.23.mlp.fc1.weight"] == (4096, 1024)


def test_every_layout_gives_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    expected = rewards.load("vqascore", str(folder)).score([WIDE, TALL], ["a cat", "a dog"])
    spread = save_clip_t5(tmp_path / "spread", parts=3)
    whole = save_clip_t5(tmp_path / "whole", apart=False)  # the checkpoint's own tower is taken
    for other in (spread, whole):
        assert torch.equal(rewards.load("vqascore", str(other)).score([WIDE, TALL], ["a cat", "a dog"]), expected)


def test_a_tower_and_a_tokenizer_elsewhere_are_read_from_where_they_are(folder: Path, tmp_path: Path) -> None:
    moved = save_clip_t5(tmp_path / "moved")
    (moved / "vision_tower").rename(tmp_path / "tower")
    (tmp_path / "words").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (moved / name).rename(tmp_path / "words" / name)
    options = {"tower": str(tmp_path / "tower"), "tokenizer": str(tmp_path / "words")}
    here, there = rewards.load("vqascore", str(folder)), rewards.load("vqascore", str(moved), **options)
    assert torch.equal(here.score([WIDE], ["a cat"]), there.score([WIDE], ["a cat"]))
    with pytest.raises(ModelError, match=r"no tokenizer .*google/flan-t5-xxl"):
        rewards.load("vqascore", str(moved), tower=options["tower"])
    with pytest.raises(ModelError, match=r"lacks .* weights .*such as tower.*openai/clip-vit-large-patch14-336"):
        rewards.load("vqascore", str(moved), tokenizer=options["tokenizer"])


def test_pickles_are_read_once_they_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFPREF_CACHE", str(tmp_path / "cache"))
    plain, pickled = save_clip_t5(tmp_path / "plain"), save_clip_t5(tmp_path / "pickled", parts=2, pickled=True)
    with pytest.raises(ModelError, match="allow_pickle=true"):
        rewards.load("vqascore", str(pickled))
    found = rewards.load("vqascore", str(pickled), allow_pickle=True).score([WIDE], ["a cat"])
    assert torch.equal(found, rewards.load("vqascore", str(plain)).score([WIDE], ["a cat"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("mm_projector.2.bias"), "lacks 1 weights .*such as projector.2.bias"),
        (lambda state: state.pop("lm_head.weight"), "lacks 1 weights .*such as language.lm_head.weight"),
        (lambda state: state.update(extra=torch.zeros(2)), "holds 1 weights that are not .*such as language.extra"),
        (lambda state: state.update({"mm_projector.0.bias": torch.zeros(5)}), r"projector.0.bias is \(5,\)"),
    ],
)
def test_a_tensor_that_is_missing_too_much_or_of_another_shape_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    saved = save_clip_t5(tmp_path)
    (file,) = saved.glob("model-*.safetensors")
    state = load_file(file)
    change(state)
    save_file(state, file)
    with pytest.raises(ModelError, match=message) as caught:
        rewards.load("vqascore", str(saved))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "message"), [({"mm_projector_type": "resampler"}, "neither linear"), ({"d_model": "wide"}, "no config")]
)
def test_a_config_of_something_else_is_refused(tmp_path: Path, told: dict[str, Any], message: str) -> None:
    saved = save_clip_t5(tmp_path)
    file = saved / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **told}))
    with pytest.raises(ModelError, match=message):
        rewards.load("vqascore", str(saved))
    file.write_text("{")
    with pytest.raises(ModelError, match=r"no readable config\.json"):
        rewards.load("vqascore", str(saved))


# ------------------------------------------------------------ other models


@pytest.mark.parametrize("save", [save_llava, save_qwen2_vl])
def test_of_any_model_the_probability_of_the_answer_is_read(save: Callable[[Path], Path], tmp_path: Path) -> None:
    reward = rewards.load("vqascore", str(save(tmp_path)))
    found = reward.score([WIDE, TALL], ["a cat", "a dog"])
    from diffpref.rewards._vlm import open_vlm

    vlm = open_vlm("x", tmp_path)
    for picture, prompt, score in zip((WIDE, TALL), ("a cat", "a dog"), found, strict=True):
        row = question_tensors(vlm.processor, TEMPLATE.ask(prompt, picture))
        probability = 1.0
        for token in vlm.tokens("Yes"):  # bytes
            chances = vlm.network(**row).logits[0, -1].softmax(-1)
            probability *= float(chances[token])
            longer = {"input_ids": torch.tensor([[token]]), "attention_mask": torch.tensor([[1]])}
            longer["mm_token_type_ids"] = torch.tensor([[0]])
            row = {name: torch.cat([t, longer[name]], 1) if name in longer else t for name, t in row.items()}
        assert score.item() == pytest.approx(probability, rel=1e-3)


def test_what_a_model_does_not_have_is_refused(folder: Path, tmp_path: Path) -> None:
    other = str(save_llava(tmp_path / "llava"))
    with pytest.raises(ConfigError, match=r"t5_geomean is CLIP-FlanT5's"):
        rewards.load("vqascore", other, mode="t5_geomean")
    with pytest.raises(ConfigError, match=r"options of CLIP-FlanT5"):
        rewards.load("vqascore", other, tower="somewhere")
    mine = tmp_path / "mine.txt"
    mine.write_text("{image} Is it {prompt}?")
    with pytest.raises(ConfigError, match=r"words, \{image\}, then words again"):
        rewards.load("vqascore", str(folder), template=str(mine))


def test_the_version_changes_with_everything_that_changes_numbers(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("Look. {image} Is it {prompt}?")
    options: list[dict[str, Any]] = [
        {},
        {"mode": "p_yes"},
        {"answer": "yes"},
        {"template": str(mine)},
        {"precision": "bfloat16"},
    ]
    made = [rewards.load("vqascore", str(folder), **one) for one in options]
    assert len({reward.info.version for reward in made}) == len(made)
    assert len({reward.score([WIDE], ["a cat"]).item() for reward in made}) == len(made)
