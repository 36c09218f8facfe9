"""Captions of candidates: what they say, by whom, made once whatever interrupts, and read by DCPO."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_vlms import save_llava

from diffpref.cli import main
from diffpref.config import build_recipe
from diffpref.core.contracts import Candidate, Caption, Clip, Record
from diffpref.core.errors import ConfigError, DataError, ModelError
from diffpref.data import caption_of, encode_png, read_store, write_store
from diffpref.generation import CaptionSettings, caption_store
from diffpref.generation.captioners import registry as captioners
from diffpref.generation.captioners.rules import describe
from diffpref.generation.captioning import add_captions, shortened
from diffpref.generation.paraphrasers import registry as paraphrasers
from diffpref.generation.paraphrasers.rules import reworded
from diffpref.models.decoders import tiny_decoder, tiny_tokenizer
from diffpref.shapes import grammar, motion
from diffpref.shapes.render import render
from diffpref.training import Trainer

# ---------------------------------------------------------------- rules


def test_the_rules_tell_what_a_picture_of_the_shapes_world_shows() -> None:
    seen = grammar.captions("seen")
    for number in range(0, 60, 7):
        picture = render(seen[number], np.random.default_rng(number))
        assert describe(picture, str(seen[number])) == str(seen[number])
        told = grammar.Caption.parse(describe(picture, str(seen[number + 1])))
        assert {told.first, told.second} == {seen[number].first, seen[number].second}
    blank = np.full((64, 64, 3), 255, np.uint8)
    assert describe(blank, str(seen[0])) == f"{seen[0]}, mostly white, bright"


def test_the_rules_read_clips_and_measure_other_pictures() -> None:
    caption = motion.moving_captions("seen")[5]
    clip = Clip(motion.render_clip(caption, np.random.default_rng(0)), motion.FPS)
    other = str(motion.moving_captions("seen")[6])
    assert describe(clip, str(caption)) == describe(clip, other) == str(caption)
    sea = np.zeros((100, 300, 3), np.uint8)
    sea[:, :200] = (50, 95, 205)
    assert describe(sea, "A ship at sea.") == "A ship at sea, mostly blue and black, evenly lit"


@pytest.mark.parametrize(("level", "changed"), [(1, 1), (40, 2), (60, 3), (80, 4), (100, 5)])
def test_the_level_is_the_share_of_facts_that_change(level: int, changed: int) -> None:
    for number, caption in enumerate(grammar.captions("seen")[:40]):
        made = grammar.Caption.parse(reworded(str(caption), level, number))
        pairs = [
            (made.first.colour, caption.first.colour),
            (made.first.shape, caption.first.shape),
            (made.relation, caption.relation),
            (made.second.colour, caption.second.colour),
            (made.second.shape, caption.second.shape),
        ]
        assert sum(one != other for one, other in pairs) == changed and made.first != made.second
    moving = motion.moving_captions("seen")[0]
    made = motion.MovingCaption.parse(reworded(str(moving), 60, 0))
    facts = zip(*((c.thing.colour, c.thing.shape, c.direction, c.speed) for c in (made, moving)), strict=True)
    assert sum(one != other for one, other in facts) == 2


PROMPT = "A small old house near the dark forest, painting of a happy girl with a red hat, detailed."


def test_plain_english_changes_with_the_level_by_key_and_always() -> None:
    words = re.findall(r"[A-Za-z]+", PROMPT)
    shares = []
    for level in (20, 40, 60, 80):
        kept = [len(set(words) & set(re.findall(r"[A-Za-z]+", reworded(PROMPT, level, seed)))) for seed in range(20)]
        shares.append(1 - np.mean(kept) / len(set(words)))
    assert (
        shares == sorted(shares)
        and shares[0] == pytest.approx(0.2, abs=0.1)
        and shares[2] == pytest.approx(0.6, abs=0.15)
    )
    assert reworded(PROMPT, 60, 3) == reworded(PROMPT, 60, 3) != reworded(PROMPT, 60, 4)
    for text in ("Zyx", "qwerty asdf", "cyberpunk samurai, 8k, trending on artstation", "", "éclair 42!"):
        for level in (1, 60, 100):
            made = reworded(text, level, 0)
            assert made != text and made.strip() and not re.search(r"\s[,.]|\s{2}", made)


# ---------------------------------------------------------------- stores


def pictures(size: int = 5) -> list[Record]:
    draw = np.random.default_rng(0)
    return [
        Record(
            f"r{number}",
            f"prompt {number // 2}",
            tuple(Candidate(bytes=encode_png(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))) for _ in range(2)),
        )
        for number in range(size)
    ]


class Teller:
    """A captioner that tells the brightness and its seed; it may stop."""

    def __init__(self, stop_after: int | None = None, identity: str = "teller 1") -> None:
        self.stop_after, self.identity, self.told = stop_after, identity, 0

    def __call__(self, media: Sequence[Any], prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        if self.stop_after is not None and self.told >= self.stop_after:
            raise RuntimeError("killed")
        self.told += len(media)
        shown = zip(media, prompts, seeds, strict=True)
        return [f"{prompt} of {np.asarray(one).mean():.3f},\n seed  {seed}" for one, prompt, seed in shown]


def backwards(texts: Sequence[str], level: int, seeds: Sequence[int]) -> list[str]:
    return [f"{text[::-1]} {level}" for text in texts]


SETTINGS = CaptionSettings(levels=(40, 80), unit_size=2, batch_size=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_store(tmp_path_factory.mktemp("plain") / "store", pictures())


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_candidate_gets_every_kind_and_the_same_text_is_said_anew_once(store: Any, tmp_path: Path) -> None:
    asked: list[str] = []

    def counted(texts: Sequence[str], level: int, seeds: Sequence[int]) -> list[str]:
        asked.extend(texts)
        return backwards(texts, level, seeds)

    made = caption_store(store, tmp_path / "told", Teller(), counted, SETTINGS)
    for record, plain in zip(made, store, strict=True):
        assert replace(record, candidates=plain.candidates) == plain
        for place, one in enumerate(record.candidates):
            kinds = [caption.kind for caption in one.captions]
            assert kinds == ["generated", "prompt_40", "prompt_80", "generated_40", "generated_80"]
            said = str(caption_of(record, place, "generated"))
            assert said.startswith(f"{record.prompt} of ") and "  " not in said and "\n" not in said
            assert caption_of(record, place, "generated_80") == f"{said[::-1]} 80"
            assert caption_of(record, place, "prompt_40") == f"{record.prompt[::-1]} 40"
    assert sum(text.startswith("prompt 0") and " of " not in text for text in asked) == 2  # a level each
    assert len({caption_of(r, k, "generated") for r in made for k in range(2)}) == 10


@pytest.mark.parametrize("stop_after", [0, 4, 8])
def test_after_a_stop_nothing_is_told_twice(store: Any, tmp_path: Path, stop_after: int) -> None:
    caption_store(store, tmp_path / "whole", Teller(), backwards, SETTINGS)
    first, second = Teller(stop_after), Teller()
    with pytest.raises(RuntimeError, match="killed"):
        caption_store(store, tmp_path / "told", first, backwards, SETTINGS)
    caption_store(store, tmp_path / "told", second, backwards, replace(SETTINGS, batch_size=64))
    assert first.told + second.told == 10 and content(tmp_path / "told") == content(tmp_path / "whole")
    with pytest.raises(DataError, match="captioner: 'teller 1' there, 'teller 2' here"):
        caption_store(store, tmp_path / "told", Teller(identity="teller 2"), backwards, SETTINGS)
    with pytest.raises(DataError, match=r"settings.seed: 0 there, 1 here"):
        caption_store(store, tmp_path / "told", Teller(), backwards, replace(SETTINGS, seed=1))


def test_kinds_are_added_one_after_another_and_what_is_there_stays(store: Any, tmp_path: Path) -> None:
    one = caption_store(store, tmp_path / "one", Teller(), None, replace(SETTINGS, kind="llava"))
    teller = Teller()
    again = caption_store(one, tmp_path / "again", teller, None, replace(SETTINGS, kind="llava"))
    assert teller.told == 0 and list(again) == list(one)
    settings = replace(SETTINGS, paraphrased=("llava",), levels=(60,))
    two = caption_store(one, tmp_path / "two", None, backwards, settings)
    assert [caption.kind for caption in two[0].candidates[0].captions] == ["llava", "llava_60"]
    with pytest.raises(DataError, match="'r0', candidate 0: has no caption of kind 'emu2', which is to be paraphrased"):
        caption_store(one, tmp_path / "three", None, backwards, replace(SETTINGS, paraphrased=("emu2",)))


def test_what_cannot_be_told_is_one_line(store: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a captioner nor a paraphraser"):
        caption_store(store, tmp_path / "x")
    with pytest.raises(ConfigError, match="choose another folder"):
        caption_store(store, store.folder, Teller())
    with pytest.raises(DataError, match="asked for 3 texts and gave 0 answers"):
        add_captions(pictures(), lambda *asked: [], None, SETTINGS)
    silent: Any = lambda media, prompts, seeds: [""] * len(media)  # noqa: E731
    with pytest.raises(
        DataError, match="'r0', candidate 0: nothing was said as its caption of kind 'generated'; set on_empty"
    ):
        add_captions(pictures(), silent, None, SETTINGS)
    (record, *_) = add_captions(pictures(), silent, None, replace(SETTINGS, on_empty="prompt"))
    assert record.candidates[0].captions == (Caption("generated", "prompt 0"),)


def test_captions_fit_into_a_text_encoder() -> None:
    assert shortened(" a\n  b ", 5) == "a b"
    assert shortened("One two three. Four five six! Seven.", 6) == "One two three. Four five six!"
    assert shortened("one two three four", 3) == "one two three"


# ---------------------------------------------------------------- models


def load(registry: Any, name: str, **options: Any) -> Any:
    return registry.get(name)(**options).load("cpu")


def alone(ask: Callable[..., Sequence[str]], *columns: Sequence[Any]) -> list[str]:
    return [text for row in zip(*columns, strict=True) for text in ask(*([one] for one in row))]


def test_a_vision_language_model_tells_each_picture_alone(tmp_path: Path) -> None:
    words = ["a sea, ", "a hill, ", "red ", "blue "]
    folder = str(save_llava(tmp_path / "llava", answers=words, std=0.5))
    captioner = load(captioners, "vlm", path=folder, max_new_tokens=4, batch_size=2)
    draw = np.random.default_rng(0)
    shown = [draw.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(4)]
    prompts, seeds = [f"prompt {number}" for number in range(4)], [0] * 4
    told = captioner(shown, prompts, seeds)
    assert all(any(word.strip() in text for word in words) for text in told)
    assert (
        told
        == alone(captioner, shown, prompts, seeds)
        == load(captioners, "vlm", path=folder, max_new_tokens=4)(shown, prompts, seeds)
    )
    clip = Clip(np.stack(shown), 8)
    assert len(captioner([clip], ["a clip"], [0])) == 1
    other = load(captioners, "vlm", path=folder, conditional=False)
    assert other.identity != captioner.identity and "{prompt}" not in other.template.text
    with pytest.raises(ModelError, match=r"^captioner 'vlm': .*holds no processor"):
        load(captioners, "vlm", path=str(tmp_path))


def save_t5(folder: Path) -> str:
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=len(tokenizer), **sizes, decoder_start_token_id=0, pad_token_id=0, eos_token_id=2)
    network = T5ForConditionalGeneration(config)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


TEXTS = ["A sea.", "One. Two. Three. Four is longer.", "A hill and a house."]


def test_a_sequence_model_is_asked_by_control_codes_window_by_window_and_drawn_by_key(tmp_path: Path) -> None:
    rewriter = load(
        paraphrasers, "dipper", path=save_t5(tmp_path / "t5"), max_new_tokens=6, batch_size=2, before="Say:"
    )
    asked: list[str] = []
    answers = rewriter._answers
    rewriter._answers = lambda texts, seeds: [asked.extend(texts), answers(texts, seeds)][1]
    said = rewriter(TEXTS, 60, [1, 2, 3])
    assert asked[0] == "lexical = 40, order = 100 Say: <sent> A sea. </sent>"
    assert asked[1] == "lexical = 40, order = 100 Say: <sent> One. Two. Three. </sent>"
    assert asked[2].startswith("lexical = 40, order = 100 Say: ") and asked[2].endswith(
        " <sent> Four is longer. </sent>"
    )
    assert asked[2] != "lexical = 40, order = 100 Say: <sent> Four is longer. </sent>"  # what was said stands before
    assert said == rewriter(TEXTS, 60, [1, 2, 3]) and said != rewriter(TEXTS, 60, [4, 5, 6])
    assert said == alone(lambda texts, seeds: rewriter(texts, 60, seeds), TEXTS, [1, 2, 3])
    with pytest.raises(ModelError, match=r"^paraphraser 'dipper': .*holds no sequence-to-sequence model"):
        load(paraphrasers, "dipper", path=str(tmp_path))


def test_a_language_model_is_asked_in_words_and_drawn_by_key(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tiny_decoder(tokenizer).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    (tmp_path / "ask.txt").write_text("{level}%: {caption} ->")
    options = {
        "path": str(tmp_path / "lm"),
        "template": str(tmp_path / "ask.txt"),
        "max_new_tokens": 8,
        "batch_size": 2,
    }
    asker = load(paraphrasers, "instruct", **options)
    said = asker(TEXTS, 40, [1, 2, 3])
    assert (
        said == asker(TEXTS, 40, [1, 2, 3]) and said != asker(TEXTS, 40, [4, 5, 6]) and all("\n" not in s for s in said)
    )
    assert said == alone(lambda texts, seeds: asker(texts, 40, seeds), TEXTS, [1, 2, 3])
    (tmp_path / "ask.txt").write_text("say it")
    with pytest.raises(ConfigError, match=r"has no place .caption."):
        load(paraphrasers, "instruct", **options)
    with pytest.raises(ModelError, match=r"^paraphraser 'instruct': .*holds no language model"):
        load(paraphrasers, "instruct", path=str(tmp_path))


# ---------------------------------------------------------------- the command


def test_the_command_makes_what_dcpo_reads(
    recipe_keys: Callable[..., dict[str, Any]], scored_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["caption", "captions/rules", "--source", str(scored_store), "--output", str(tmp_path / "told"), "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["records"] == 16 and told["captions"] == dict.fromkeys(told["captions"], 48)
    assert set(told["captions"]) == {
        "generated",
        *(f"{k}_{level}" for k in ("prompt", "generated") for level in (40, 60, 80)),
    }
    record = read_store(tmp_path / "told")[0]
    assert grammar.Caption.parse(str(caption_of(record, 0, "generated"))) == grammar.Caption.parse(record.prompt)
    keys = recipe_keys(method="dcpo", data__source=str(tmp_path / "told"), training={"steps": 1, "batch_size": 2})
    (row,) = Trainer(build_recipe(keys)).steps()
    assert row["loss"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--captioner", "rule"], "unknown captioner 'rule'; did you mean 'rules'?"),
        (["--captioner", "{vlm: {}}"], "captioner.path: must be given"),
        (["--levels", "40", "40"], "levels: must be different ones"),
        (["--levels", "0"], "levels"),
        (["--source", "nowhere"], "not a store"),
        (["--paraphraser", "{rules: {kind: 3}}"], "paraphraser.kind: unknown key"),
    ],
)
def test_mistakes_of_caption_are_lines(store: Any, tmp_path: Path, capsys: Any, words: list[str], said: str) -> None:
    given = ["caption", "captions/rules", "--source", str(store.folder), "--output", str(tmp_path / "x"), *words]
    assert main(given) == 2
    assert said in capsys.readouterr().err
