"""Vision-language models as rewards ask them: tiny ones of the real classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlms import save_llava, save_qwen2_vl
from torch import Tensor

from diffpref.core.contracts import Tensors
from diffpref.core.errors import DataError, ModelError
from diffpref.core.media import Clip
from diffpref.rewards._vlm import Question, VisionLanguage, grouped, open_processor, open_vlm, question_tensors

SAVED = {"llava": save_llava, "qwen2_vl": save_qwen2_vl}


@pytest.fixture(scope="module", params=sorted(SAVED))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save: Callable[[Path], Path] = SAVED[request.param]
    return save(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def vlm(folder: Path) -> VisionLanguage:
    return open_vlm("judge", folder, micro_batch=4)


def picture(seed: int, width: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, width, 3), dtype=np.uint8))


def questions(count: int) -> list[Question]:
    """Some of them alike in every shape, some not."""
    words = ("red", "blue", "tan", "green")
    return [Question((picture(i, 64 + 32 * (i % 2)), f"is it {words[i % 4]}?")) for i in range(count)]


def last(logits: Tensor) -> Tensor:
    return logits[:, -1]


def test_an_answer_does_not_depend_on_what_else_is_asked(vlm: VisionLanguage) -> None:
    asked = questions(6)
    together = vlm.answers(asked, 6)
    assert together == [vlm.answers([one], 6)[0] for one in asked]
    assert together[::-1] == vlm.answers(asked[::-1], 6)
    alone = torch.cat([vlm.read([one], last) for one in asked])
    assert torch.allclose(vlm.read(asked, last), alone, atol=1e-5)


def test_logits_are_the_networks_own(vlm: VisionLanguage) -> None:
    (asked,) = questions(1)
    row = question_tensors(vlm.processor, asked)
    own = vlm.network(**row).logits[:, -1]
    assert torch.allclose(vlm.read([asked], last), own, atol=1e-5)


def test_a_given_answer_is_read_at_each_of_its_places(vlm: VisionLanguage) -> None:
    (asked,) = questions(1)
    answer = vlm.tokens("Yes")
    assert len(answer) == 3  # bytes
    row = question_tensors(vlm.processor, asked)
    start = row["input_ids"].shape[1]
    found = vlm.read([asked], lambda logits: logits, answer)[0]
    for k in range(3):  # one place after the other, each time asked anew
        longer = dict(row)
        more = torch.tensor([answer[:k]], dtype=torch.long)
        longer["input_ids"] = torch.cat([row["input_ids"], more], 1)
        for name in ("attention_mask", "mm_token_type_ids"):
            if name in row:
                filler = torch.full_like(more, 1 if name == "attention_mask" else 0)
                longer[name] = torch.cat([row[name], filler], 1)
        assert torch.allclose(found[k], vlm.network(**longer).logits[0, start + k - 1], atol=1e-5)


def test_the_most_probable_token_is_said(vlm: VisionLanguage) -> None:
    asked = questions(3)
    best = vlm.read(asked, lambda logits: logits[:, -1].argmax(-1))
    said = vlm.answers(asked, 1)
    assert said == [vlm.processor.tokenizer.decode([int(token)], skip_special_tokens=True) for token in best]


def test_logits_of_half_precision_are_not_rounded_to_it(folder: Path) -> None:
    half = open_vlm("judge", folder, precision="bfloat16")
    logits = half.read(questions(2), last)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


def test_pictures_and_words_keep_their_order(vlm: VisionLanguage) -> None:
    a, b = picture(0), picture(1)
    one = Question(("first", a, "second", b))
    other = Question(("first", b, "second", a))
    assert not torch.allclose(vlm.read([one], last), vlm.read([other], last))
    assert one.text == "firstsecond"
    told = Question(("first", a, "second", b), system="be strict")
    assert not torch.allclose(vlm.read([one], last), vlm.read([told], last))


def test_a_processor_without_a_template_sets_the_parts_one_after_the_other(folder: Path) -> None:
    processor = open_processor("judge", folder)
    processor.chat_template = None
    row = question_tensors(processor, Question((picture(0), "what?"), system="Look. "))
    text = processor.tokenizer.decode(row["input_ids"][0])
    assert text.startswith("Look. <") and text.endswith("what?")
    assert (row["input_ids"] == processor.image_token_id).sum() > 1


def test_a_beginning_that_the_template_wrote_is_not_written_twice(folder: Path) -> None:
    processor = open_processor("judge", folder)
    tokenizer = processor.tokenizer
    from tokenizers.processors import TemplateProcessing

    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    plain = question_tensors(processor, Question((picture(0), "what?")))["input_ids"][0]
    assert plain[0] == tokenizer.bos_token_id and (plain == tokenizer.bos_token_id).sum() == 1
    processor.chat_template = bos + processor.chat_template
    assert torch.equal(question_tensors(processor, Question((picture(0), "what?")))["input_ids"][0], plain)


def test_a_question_that_is_too_long_is_refused_with_its_number(vlm: VisionLanguage) -> None:
    asked = [Question((picture(0), "short")), Question((picture(0), "long" * 600))]
    with pytest.raises(DataError, match=r"question 1: .* the model reads 2048"):
        vlm.answers(asked, 4)


def test_a_prompt_that_has_the_mark_of_a_picture_is_refused_with_its_number(vlm: VisionLanguage) -> None:
    mark = vlm.processor.image_token
    with pytest.raises(DataError, match="reward 'judge', question 1: "):
        vlm.answers([Question((picture(0), "fine")), Question((picture(0), f"a {mark} b"))], 4)


def test_rows_of_equal_shape_meet_and_come_back_in_order() -> None:
    rows = [{"x": torch.full((1, length), float(i))} for i, length in enumerate([2, 3, 2, 2, 3])]
    sizes = []

    def run(batch: dict[str, Tensor]) -> list[float]:
        sizes.append(tuple(batch["x"].shape))
        return batch["x"][:, 0].tolist()

    assert grouped(rows, run, 2) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert sizes == [(2, 2), (1, 2), (2, 3)]


def test_no_more_rows_are_made_ahead_than_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffpref.rewards._vlm.HELD_BYTES", 100)
    made, ahead = 0, []

    def rows() -> Iterator[dict[str, Tensor]]:
        nonlocal made
        for number in range(20):
            made += 1
            yield {"x": torch.full((1, 3 + number % 2), float(number))}  # 12 or 16 bytes

    def run(batch: Tensors) -> list[float]:
        ahead.append(made)
        return batch["x"][:, 0].tolist()

    assert grouped(rows(), run, 3) == list(range(20))
    assert ahead == [8, 8, 8, 8, 16, 16, 16, 16, 20, 20]  # windows of 8, in batches of 3 or less of equal shapes
    made, ahead = 0, []
    assert grouped(rows(), run, 15) == list(range(20)) and ahead == [15, 15, 20, 20]  # a batch at least


def test_videos_are_seen(tmp_path: Path) -> None:
    vlm = open_vlm("judge", save_qwen2_vl(tmp_path))
    frames = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3), dtype=np.uint8)
    still = np.repeat(frames[:1], 4, axis=0)
    moving, standing = (Question((Clip(shown), "what moves?")) for shown in (frames, still))
    assert not torch.allclose(vlm.read([moving], last), vlm.read([standing], last))


def test_what_cannot_be_loaded_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"reward 'judge': .* holds no processor"):
        open_vlm("judge", tmp_path)
    saved = save_llava(tmp_path)
    (saved / "model.safetensors").rename(saved / "kept")
    with pytest.raises(ModelError, match=r"reward 'judge': .* holds no vision-language model") as caught:
        open_vlm("judge", saved)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_not_drawn_at_random(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = save_llava(tmp_path) / "model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if "multi_modal_projector" in name or "connector" in name)
    del tensors[gone]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 weights"):
        open_vlm("judge", tmp_path)
