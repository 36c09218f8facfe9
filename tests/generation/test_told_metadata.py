"""Rewards that read metadata are told each record's ``meta``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffpref import rewards
from diffpref.core.contracts import Candidate, Record
from diffpref.core.errors import DataError
from diffpref.data import encode_png, write_store
from diffpref.evaluation.prompt_sets import load_prompt_set
from diffpref.generation import score_records, score_store
from diffpref.shapes.grammar import Caption
from diffpref.shapes.render import render


def test_answers_are_compared_with_the_one_of_their_record(tmp_path: Path) -> None:
    answers = (Candidate(text="12"), Candidate(text="13"))
    records = [Record(str(n), "6 + 6 = ?", answers, meta={"answer": str(n)}) for n in (12, 13)]
    store = write_store(tmp_path / "data", records)
    scorers = {"right": rewards.load("program", program="exact_match")}
    scored = score_store(store, scorers, tmp_path / "scored")
    found = [[candidate.scores[0].value for candidate in scored[row].candidates] for row in range(2)]
    assert found == [[1.0, 0.0], [0.0, 1.0]]


def test_lists_of_objects_are_read_from_json() -> None:
    asked = load_prompt_set("shapes_geneval:3")
    assert asked.metadata is not None
    pictures = [encode_png(render(Caption.parse(p), np.random.default_rng(0))) for p in asked.prompts]
    records = [
        Record(
            prompt,
            prompt,
            (Candidate(bytes=picture),),
            meta={k: v if isinstance(v, str) else json.dumps(v) for k, v in m.items()},
        )
        for prompt, picture, m in zip(asked.prompts, pictures, asked.metadata, strict=True)
    ]
    scored = score_records(records, {"geneval": rewards.load("geneval", detector="shapes")})
    assert [record.candidates[0].scores[0].value for record in scored] == [1.0, 1.0, 1.0]


def test_what_is_no_json_is_told_with_its_record() -> None:
    record = Record("r7", "p", (Candidate(text="a"),), meta={"reference": "[1, "})
    with pytest.raises(DataError, match=r"record 'r7': meta.reference is no JSON"):
        score_records([record], {"right": rewards.load("program", program="exact_match")})
