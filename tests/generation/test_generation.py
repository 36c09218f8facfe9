"""Candidates: each picture a function of its key, made once whatever interrupts, never mixed with another plan's."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffpref import rewards
from diffpref.core.contracts import Candidate, Record, RewardInfo, Score
from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.core.randomness import hash_key
from diffpref.data import decode_image, encode_png, pair_view, read_store
from diffpref.data.texts import answer_of, prompt_of
from diffpref.generation import GenerationPlan, generate, score_records, score_store, summarise_scores
from diffpref.generation.growing import GrowingStore
from diffpref.sampling import SamplerSettings, TextSettings
from diffpref.words import Instruction, instructions

PLAN = GenerationPlan(prompts=("a", "b", "c", "d", "e"), candidates=3, seed=7, generator="test", unit_size=2)


class Drawer:
    """A sampler whose pictures tell prompt and seed; it counts, and may stop."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.drawn: list[tuple[str, int]] = []
        self.calls, self.stop_after = 0, stop_after

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray]:
        if self.calls == self.stop_after:
            raise RuntimeError("killed")
        self.calls += 1
        self.drawn += list(zip(prompts, seeds, strict=True))
        return [
            np.random.default_rng([seed, ord(p[0])]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            for p, seed in self.drawn[-len(prompts) :]
        ]


class Brightness:
    """A reward: the mean pixel. Prompts in ``broken`` get NaN."""

    def __init__(self, version: str = "1", broken: str = "") -> None:
        self.version, self.broken, self.seen = version, broken, 0

    @property
    def info(self) -> RewardInfo:
        return RewardInfo("brightness", self.version, "Apache-2.0", (0.0, 255.0))

    def score(self, media, prompts, metadata=None) -> torch.Tensor:
        self.seen += len(media)
        means = [float(np.asarray(picture).mean()) for picture in media]
        pairs = zip(means, prompts, strict=True)
        return torch.tensor([math.nan if prompt in self.broken else mean for mean, prompt in pairs])


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_candidate_has_the_seed_of_its_key_and_one_picture_can_be_made_again(tmp_path):
    store = generate(PLAN, Drawer(), tmp_path / "store")
    assert [record.prompt for record in store] == list(PLAN.prompts)
    assert len({record.id for record in store}) == 5
    candidate = store[3].candidates[2]
    assert candidate.seed == hash_key(7, "candidate", "d", 2) == PLAN.seed_of("d", 2)
    assert candidate.generator == "test, ddim, 30 steps, guidance 5"
    again = Drawer()(["d"], [candidate.seed])[0]
    assert (np.asarray(decode_image(candidate.bytes)) == again).all()
    assert encode_png(again) == candidate.bytes


def test_a_record_does_not_depend_on_the_other_prompts_or_on_the_units(tmp_path):
    store = generate(PLAN, Drawer(), tmp_path / "a")
    other = generate(replace(PLAN, prompts=("x", "d"), unit_size=1), Drawer(), tmp_path / "b")
    assert other[1] == store[3]


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_after_a_stop_what_is_there_is_not_made_again_and_the_content_is_the_same(tmp_path, stop_after):
    generate(PLAN, Drawer(), tmp_path / "whole", scorers={"bright": Brightness()})
    first, second, reward = Drawer(stop_after), Drawer(), Brightness()
    with pytest.raises(RuntimeError, match="killed"):
        generate(PLAN, first, tmp_path / "store", scorers={"bright": Brightness()})
    with pytest.raises(DataError, match="not a store"):
        read_store(tmp_path / "store")
    (tmp_path / "store" / ".tmp-part-00002.parquet").write_bytes(b"half a part")
    progress = []
    generate(PLAN, second, tmp_path / "store", lambda *done: progress.append(done), scorers={"bright": reward})
    assert not set(first.drawn) & set(second.drawn) and len(first.drawn) + len(second.drawn) == 15
    assert reward.seen == len(second.drawn)
    assert progress[0] == (len(first.drawn), 15) and progress[-1] == (15, 15)
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    read_store(tmp_path / "store", verify="checksums")


def test_a_finished_store_is_opened_without_drawing(tmp_path):
    generate(PLAN, Drawer(), tmp_path / "store")
    drawer = Drawer()
    assert len(generate(PLAN, drawer, tmp_path / "store")) == 5 and drawer.calls == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 8}, "seed: 7 there, 8 here"),
        ({"prompts": ("a", "b", "c", "d", "f")}, "prompts[4]: 'e' there, 'f' here"),
        ({"prompts": ("a", "b")}, "prompts: 5 entries there, 2 here"),
        ({"settings": (SamplerSettings(guidance_scale=7.5),)}, "settings[0].guidance_scale: 5.0 there, 7.5 here"),
        ({"generator": "another"}, "generator: 'test' there, 'another' here"),
    ],
)
def test_the_folder_of_another_plan_is_refused_with_the_difference(tmp_path, change, said):
    generate(PLAN, Drawer(), tmp_path / "store")
    before = content(tmp_path / "store")
    with pytest.raises(DataError, match="made by another plan") as error:
        generate(replace(PLAN, **change), Drawer(), tmp_path / "store")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert content(tmp_path / "store") == before


def test_other_scorers_are_another_plan(tmp_path):
    generate(PLAN, Drawer(), tmp_path / "store", scorers={"bright": Brightness("1")})
    with pytest.raises(DataError, match=r"scores.bright: '1' there, '2' here"):
        generate(PLAN, Drawer(), tmp_path / "store", scorers={"bright": Brightness("2")})


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="exists already"):
        generate(PLAN, Drawer(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_damaged_plan_is_one_line(tmp_path):
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        GrowingStore(tmp_path, {}, 1)


def test_guidance_scales_alternate_within_a_record(tmp_path):
    low, high = SamplerSettings(guidance_scale=2.0), SamplerSettings(guidance_scale=8.0)
    plan = replace(PLAN, settings=(low, high))
    samplers = {low: Drawer(), high: Drawer()}
    store = generate(plan, samplers, tmp_path / "store")
    assert [c.generator[-1] for c in store[0].candidates] == ["2", "8", "2"]
    assert {seed for _, seed in samplers[high].drawn} == {plan.seed_of(p, 1) for p in plan.prompts}
    with pytest.raises(ConfigError, match="a sampler for each"):
        generate(plan, Drawer(), tmp_path / "other")
    with pytest.raises(ConfigError, match="no sampler"):
        generate(plan, {low: Drawer()}, tmp_path / "other")


def test_a_sampler_that_does_not_answer_every_question_is_refused(tmp_path):
    with pytest.raises(ShapeError, match="1 candidates for 6"):
        generate(PLAN, lambda prompts, seeds: [np.zeros((8, 8, 3), np.uint8)], tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"prompts": ()}, "no prompts"),
        ({"prompts": ("a", "b", "a")}, "appear more than once"),
        ({"candidates": 0}, "candidates: must be at least 1"),
        ({"unit_size": 0}, "unit_size: must be at least 1"),
        ({"settings": ()}, "settings"),
        ({"settings": (SamplerSettings(),) * 4}, "settings"),
    ],
)
def test_plans_that_cannot_be_meant_are_refused(change, error):
    with pytest.raises((ConfigError, DataError), match=error):
        replace(PLAN, **change)


def test_a_plan_comes_back_from_the_plan_file(tmp_path):
    generate(PLAN, Drawer(), tmp_path / "store")
    saved = json.loads((tmp_path / "store" / "plan.json").read_text())
    assert saved.pop("kind") == "generation" and saved.pop("scores") == {}
    assert GenerationPlan.from_json(saved) == PLAN
    with pytest.raises(DataError, match="not a generation plan"):
        GenerationPlan.from_json({"prompts": ["a"]})


# ---------------------------------------------------------------- scores


def test_scores_are_added_once_and_pairs_follow_from_them(tmp_path):
    store = generate(PLAN, Drawer(), tmp_path / "store", scorers={"bright": Brightness()})
    again, other = Brightness(), Brightness("2")
    scored = score_store(store, {"bright": again, "second": other}, tmp_path / "scored", unit_size=2)
    assert again.seen == 0 and other.seen == 15
    for record, before in zip(scored, store, strict=True):
        assert record.id == before.id and [c.bytes for c in record.candidates] == [c.bytes for c in before.candidates]
        for candidate in record.candidates:
            assert [(s.name, s.version) for s in candidate.scores] == [("bright", "1"), ("second", "2")]
            mean = np.asarray(decode_image(candidate.bytes)).mean()
            assert candidate.scores[0].value == pytest.approx(mean, rel=1e-6) == candidate.scores[1].value
    pairs = pair_view(scored, "best_vs_worst", "bright")
    assert len(pairs) == 5
    values = [c.scores[0].value for c in scored[0].candidates]
    assert values[pairs[0].chosen] == max(values) and values[pairs[0].rejected] == min(values)


def test_row_36_another_version_of_a_score_is_another_score(tmp_path):
    record = Record("r", "p", (Candidate(bytes=encode_png(np.zeros((8, 8, 3), np.uint8))),))
    once = score_records([record], {"bright": Brightness("1")})
    twice = score_records(once, {"bright": Brightness("2")})
    assert twice[0].candidates[0].scores == (Score("bright", "1", 0.0), Score("bright", "2", 0.0))


def test_scoring_resumes_at_the_part(tmp_path):
    store = generate(PLAN, Drawer(), tmp_path / "store")

    class Stopping(Brightness):
        def score(self, media, prompts, metadata=None):
            if self.seen >= 6:
                raise RuntimeError("killed")
            return super().score(media, prompts)

    with pytest.raises(RuntimeError, match="killed"):
        score_store(store, {"bright": Stopping()}, tmp_path / "scored", unit_size=2)
    rest = Brightness()
    score_store(store, {"bright": rest}, tmp_path / "scored", unit_size=2)
    assert rest.seen == 9
    score_store(store, {"bright": Brightness()}, tmp_path / "whole", unit_size=2)
    assert content(tmp_path / "scored") == content(tmp_path / "whole")


def test_row_13_scores_that_are_not_finite_are_counted_and_never_become_numbers(tmp_path, caplog):
    broken = {"bright": Brightness(broken="ab")}
    with pytest.raises(
        DataError, match=r"6 of 15 scores by bright@1 are .* more than the 1\.0% allowed .* candidate 0"
    ):
        generate(PLAN, Drawer(), tmp_path / "store", scorers=broken)
    store = generate(PLAN, Drawer(), tmp_path / "store", scorers=broken, max_unusable=0.4)
    assert "not finite" in caplog.text and store.manifest["unusable_scores"] == {"bright@1": 6}
    listed = [json.loads(line) for line in (tmp_path / "store" / "quarantine.jsonl").read_text().splitlines()]
    assert [(one["id"], one["candidate"]) for one in listed] == [(r.id, k) for r in store[:2] for k in range(3)]
    (summary,) = summarise_scores(store)
    assert (summary.count, summary.not_finite) == (15, 6) and 0 < summary.mean < 255 and summary.std > 0
    assert all(math.isnan(c.scores[0].value) for c in store[0].candidates)
    assert len(pair_view(store, "best_vs_worst", "bright", max_unusable=0.5)) == 3


def test_answers_are_drawn_and_scored_like_pictures(tmp_path):
    asked = instructions("unseen", 3)
    plan = replace(PLAN, prompts=tuple(map(str, asked)), settings=(TextSettings(max_new_tokens=9, top_p=0.9),))
    assert GenerationPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan

    def answer(prompts, seeds):
        right = [Instruction.parse(prompt).answer for prompt in prompts]
        return [
            text if seed == plan.seed_of(p, 0) else "." for text, p, seed in zip(right, prompts, seeds, strict=True)
        ]

    store = generate(plan, answer, tmp_path / "store", scorers={"words": rewards.load("words")})
    best, worst = store[1].candidates[0], store[1].candidates[1]
    assert (best.text, best.scores[0].value, best.seed) == (asked[1].answer, 1.0, plan.seed_of(str(asked[1]), 0))
    assert best.generator == "test, temperature 1, top_p 0.9, 9 tokens" and worst.scores[0].value < 0.5
    assert {pair.chosen for pair in pair_view(store, "best_vs_worst", "words")} == {0}
    assert prompt_of(store[1]) == str(asked[1])

    chatty = replace(plan, settings=(replace(plan.settings[0], chat=True),))
    said = generate(chatty, answer, tmp_path / "chat")[1]
    assert prompt_of(said) == [{"role": "user", "content": str(asked[1])}]
    assert answer_of(said, 0) == [{"role": "assistant", "content": asked[1].answer}]


def test_a_store_without_scores_has_no_summary(tmp_path):
    assert summarise_scores(generate(PLAN, Drawer(), tmp_path / "store")) == []


def test_scoring_refuses_what_it_cannot_do(tmp_path):
    store = generate(PLAN, Drawer(), tmp_path / "store")
    with pytest.raises(ConfigError, match="is the store that is scored"):
        score_store(store, {"bright": Brightness()}, tmp_path / "store")
    with pytest.raises(ConfigError, match="no scorers"):
        score_store(store, {}, tmp_path / "scored")
    with pytest.raises(DataError, match="record 'r', candidate 0: holds no picture and no text"):
        score_records([Record("r", "p", (Candidate(),))], {"bright": Brightness()})
    broken = Record("r", "p", (Candidate(bytes=b"no picture"),))
    with pytest.raises(DataError, match="record 'r', candidate 0: cannot be decoded"):
        score_records([broken], {"bright": Brightness()})


class Crooked(Brightness):
    """Gives no score for a black picture, and a row of them for the others of its call."""

    def score(self, media, prompts, metadata=None):
        scores = super().score(media, prompts)
        keep = [i for i, picture in enumerate(media) if np.asarray(picture).any()]
        return scores[keep]


def test_row_13_a_picture_for_which_a_reward_gives_no_number_is_set_aside_alone(tmp_path):
    def draw(prompts, seeds):
        shades = [0 if prompt == "c" and seed % 2 else 200 for prompt, seed in zip(prompts, seeds, strict=True)]
        return [np.full((8, 8, 3), shade, np.uint8) for shade in shades]

    store = generate(PLAN, draw, tmp_path / "store", scorers={"bright": Crooked()}, max_unusable=0.2)
    black = sum(PLAN.seed_of("c", k) % 2 for k in range(3))
    assert 0 < black < 3 and store.manifest["unusable_scores"] == {"bright@1": black}
    values = [candidate.scores[0].value for record in store for candidate in record.candidates]
    assert sum(map(math.isnan, values)) == black and [v for v in values if not math.isnan(v)] == [200.0] * (15 - black)


def test_unusable_scores_of_an_earlier_scoring_do_not_stop_another(tmp_path):
    broken = {"bright": Brightness(broken="ab")}
    store = generate(PLAN, Drawer(), tmp_path / "store", scorers=broken, max_unusable=1.0)
    scored = score_store(store, {"other": Brightness("2")}, tmp_path / "scored")
    assert scored.manifest["unusable_scores"] == {}
    with pytest.raises(DataError, match="6 of 15 scores by third@1"):
        score_store(store, {"third": Brightness(broken="ab")}, tmp_path / "third")
