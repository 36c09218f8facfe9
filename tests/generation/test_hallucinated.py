"""Records with answers that a model makes when it sees little, and training on them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffpref.core.contracts import Candidate, Judgement, PromptMedia, Record
from diffpref.core.errors import DataError
from diffpref.core.randomness import Random
from diffpref.data.pairs import pair_view
from diffpref.generation.hallucinated import with_hallucinations
from diffpref.models import registry
from diffpref.sampling.hidden import HiddenSampler, HiddenSettings
from diffpref.sampling.text import TextSettings


def seen(number: int) -> PromptMedia:
    shown = np.random.default_rng(number).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(shown).save(file, format="PNG")
    return PromptMedia(bytes=file.getvalue())


@pytest.fixture(scope="module")
def sampler() -> Any:
    settings = HiddenSettings(text=TextSettings(max_new_tokens=5))
    return HiddenSampler(registry.get("vlm").tiny(), settings, Random(0))


def test_a_good_answer_gets_a_bad_one(sampler: Any) -> None:
    records = [Record(f"r{n}", "what?", (Candidate(text="A cat sat."),), inputs=(seen(n),)) for n in range(3)]
    made = list(with_hallucinations(records, sampler))
    assert made == list(with_hallucinations(reversed(records), sampler))[::-1]
    for record, pair in zip(made, pair_view(made), strict=True):
        good, bad = record.candidates
        assert (pair.chosen, pair.rejected) == (0, 1) and bad.generator == "bdhs"
        assert bad.text != good.text and str(bad.text).startswith("A")


def test_a_pair_gets_an_online_sample(sampler: Any) -> None:
    answers = (Candidate(text="bad."), Candidate(text="A cat sat."))
    record = Record("r", "what?", answers, (Judgement(0, 1, 0.0),), inputs=(seen(0),))
    (made,) = with_hallucinations([record], sampler)
    (pair,) = pair_view([made])
    assert pair.groups == {"chosen": 1, "rejected": 0, "online": 2}
    assert str(made.candidates[2].text).startswith("A")  # the good one's head


def test_messages_are_followed_too(sampler: Any) -> None:
    meta = {"messages": '[{"role": "user", "content": "what?"}]'}
    record = Record("r", "what?", (Candidate(text="A cat sat."),), meta=meta, inputs=(seen(0),))
    plain = Record("r", "what?", (Candidate(text="A cat sat."),), inputs=(seen(0),))
    one, other = (next(iter(with_hallucinations([r], sampler))).candidates[1].text for r in (record, plain))
    assert one == other


@pytest.mark.parametrize("given", [{"candidates": ()}, {"inputs": ()}])
def test_records_without_an_answer_or_a_picture_are_told(sampler: Any, given: dict[str, Any]) -> None:
    record = Record("r7", "what?", **{"candidates": (Candidate(text="A cat."),), "inputs": (seen(0),), **given})
    with pytest.raises(DataError, match="record 'r7': "):
        list(with_hallucinations([record], sampler))
