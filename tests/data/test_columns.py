"""What columns mean, what is wrong with a row, and prompts of every kind."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from diffpref.core.contracts import Candidate, Judgement, PromptMedia, Record, Score
from diffpref.core.errors import DataError
from diffpref.data import encode_png, open_records, read_store, usable_records, write_store
from diffpref.data.columns import LAYOUTS, MAX_PROMPT, MEANINGS, PROMPT_CHANGED, Columns, clean_prompt
from diffpref.data.schema import to_table
from diffpref.models.tiny import tiny_tokenizer
from diffpref.plotting import labelled_grid

RED, BLUE = (encode_png(np.full((4, 4, 3), value, dtype=np.uint8)) for value in (10, 200))
USUAL = sorted({name for names in MEANINGS.values() for name in names})


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---------------------------------------------------------------- layouts


def test_chosen_and_rejected_with_everything_else_that_has_a_meaning(tmp_path):
    row = {
        "id": 7,
        "prompt": "p",
        "chosen": RED,
        "rejected": {"bytes": BLUE, "path": None},
        "inputs": [RED],
        "weight": 2,
        "annotator": "x",
        "unknown": 1.5,
    }
    (record,) = open_records(table(tmp_path / "a.parquet", [row]))
    assert record == Record(
        "7",
        "p",
        (Candidate(bytes=RED), Candidate(bytes=BLUE)),
        (Judgement(0, 1, 1.0, weight=2.0, annotator="x"),),
        source=str(tmp_path / "a.parquet"),
        inputs=(PromptMedia(bytes=RED),),
    )


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("prompt", "first", "second", "probability"), None),
        (("caption", "jpg_0", "jpg_1", "label_0"), None),  # as Pick-a-Pic has them
        (("text", "image_0", "image_1", "p"), {"probability": "p"}),
    ],
)
def test_first_second_and_the_probability_that_the_first_is_better(tmp_path, names, columns):
    rows = [dict(zip(names, ("p", RED, BLUE, value), strict=True)) for value in (1.0, 0.5, 0.0)]
    records = open_records(table(tmp_path / "a.parquet", rows), columns=columns)
    assert [record.judgements for record in records] == [(Judgement(0, 1, value),) for value in (1.0, 0.5, 0.0)]
    assert [one.bytes for one in records[0].candidates] == [RED, BLUE] and records[0].prompt == "p"


def test_images_with_scores(tmp_path):
    rows = [{"prompt": "p", "images": [RED, BLUE, RED], "scores": [0.5, None, -1.0]}]
    (record,) = open_records(table(tmp_path / "a.parquet", rows))
    assert [one.bytes for one in record.candidates] == [RED, BLUE, RED] and record.judgements == ()
    assert [one.scores for one in record.candidates] == [(Score("scores", "", 0.5),), (), (Score("scores", "", -1.0),)]


def test_one_image_and_its_prompt(tmp_path):
    (record,) = open_records(lines(tmp_path / "a.jsonl", [{"file_name": "b/c.png", "text": "p"}]))
    assert record.candidates == (Candidate(path=str(tmp_path / "b" / "c.png")),) and record.judgements == ()


def test_columns_are_named_by_the_recipe(tmp_path):
    rows = [{"text_en": "en", "prompt": "de", "best": RED, "worst": BLUE, "chosen": BLUE, "rejected": RED}]
    path = table(tmp_path / "a.parquet", rows)
    assert open_records(path)[0].prompt == "de" and open_records(path)[0].candidates[0].bytes == BLUE
    (record,) = open_records(path, columns={"prompt": "text_en", "chosen": "best", "rejected": "worst"})
    assert record.prompt == "en" and record.candidates[0].bytes == RED


def test_the_layout_of_a_named_column_comes_first(tmp_path):
    row = {"prompt": "p", "chosen": RED, "rejected": BLUE, "image": RED}
    path = table(tmp_path / "a.parquet", [row])
    assert len(open_records(path)[0].candidates) == 2
    assert len(open_records(path, columns={"image": "image"})[0].candidates) == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prmpt": "a"}, r"data\.columns: unknown 'prmpt'.*did you mean 'prompt'"),
        ({"prompt": "b"}, r"no column 'b' \(data\.columns\.prompt\); found: a, chosen, rejected"),
        ({}, r"no column prompt; needed are prompt"),
    ],
)
def test_a_mapping_that_does_not_fit_says_what_would(tmp_path, columns, message):
    with pytest.raises(DataError, match=message) as caught:
        open_records(table(tmp_path / "a.parquet", [{"a": "p", "chosen": RED, "rejected": BLUE}]), columns=columns)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- rows


LETTERS = st.text(st.characters(exclude_categories=()), max_size=8)  # surrogates too
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), LETTERS, st.binary(max_size=8), st.builds(lambda: 10**5000)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(["bytes", "path"]), LETTERS), inner, max_size=3),
    ),
    max_leaves=6,
)
GOOD = {
    "prompt": LETTERS,
    "probability": st.floats(0, 1),
    "images": st.lists(st.just(RED), max_size=3),
    "scores": st.lists(st.one_of(st.none(), st.floats(), st.integers()), max_size=3),
    "id": st.one_of(LETTERS, st.integers()),
    "weight": st.floats(),
    "annotator": LETTERS,
}


@st.composite
def rows(draw: st.DrawFn) -> dict[Any, Any]:
    """A row whose columns hold what they should, anything else, or nothing."""
    row: dict[Any, Any] = draw(st.dictionaries(st.one_of(LETTERS, st.integers()), VALUES, max_size=2))
    for meaning, usual in MEANINGS.items():
        kind = draw(st.sampled_from(["good", "good", "good", "any", "absent"]))
        if kind != "absent":
            right = GOOD.get(meaning, st.sampled_from([RED, "a.png", {"bytes": RED, "path": None}]))
            row[draw(st.sampled_from(usual))] = draw(VALUES if kind == "any" else right)
    return row


@pytest.mark.parametrize("layout", LAYOUTS, ids="-".join)
@settings(max_examples=200)
@given(row=st.one_of(rows(), VALUES))
def test_row_24_a_row_becomes_a_record_or_a_data_error(layout, row):
    there = [*(MEANINGS[meaning][0] for meaning in layout), "id", "weight", "annotator", "inputs"]
    columns = Columns.find(there, None, Path("folder"), "table")
    try:
        record = columns.record(row, "0", "table, row 0", "table")
    except DataError as error:
        assert str(error).startswith("table, row 0: ") and "expected" in str(error) and "\n" not in str(error)
        return
    assert len(record.candidates) >= (0 if "images" in layout else len({"prompt", "image"} & set(layout)) - 1)
    assert len(record.prompt) <= MAX_PROMPT and to_table([record]).num_rows == 1
    assert all(0 <= one.probability <= 1 and math.isfinite(one.weight) for one in record.judgements)


@settings(max_examples=50)
@given(there=st.lists(st.one_of(st.sampled_from(USUAL), LETTERS)), wanted=st.dictionaries(LETTERS, LETTERS, max_size=2))
def test_row_24_column_names_make_a_layout_or_a_data_error(there, wanted):
    try:
        columns = Columns.find(there, wanted, Path("folder"), "table")
    except DataError:
        return
    assert any(set(layout) <= set(columns.names) for layout in LAYOUTS)


def test_row_24_lists_in_lists_as_deep_as_json_reads_them_are_refused_not_fatal():
    columns = Columns.find(["prompt", "image"], None, Path("folder"), "table")
    for depth in (1, 100, 800, 900, 950, 1000, 5000):
        value: Any = []
        for _ in range(depth):
            value = [value]
        with pytest.raises(DataError, match="column 'prompt': expected a text, got list"):
            columns.record({"prompt": value, "image": "a.png"}, "0", "table", "table")


def test_row_24_all_problems_of_a_row_are_listed_at_once(tmp_path):
    good = {"id": "a", "caption": "p", "jpg_0": "a.png", "jpg_1": "b.png", "label_0": 1, "weight": 1}
    bad = {"id": [], "caption": None, "jpg_0": 3, "jpg_1": "", "label_0": 1.5, "weight": -1, "extra": 1}
    records = open_records(lines(tmp_path / "a.jsonl", [good, bad]))
    assert records[0].id == "a"
    with pytest.raises(DataError) as caught:
        records[1]
    picture = "expected image bytes, a path, or {bytes, path}, of a clip perhaps a list of frames"
    assert str(caught.value) == f"{tmp_path / 'a.jsonl'}, line 2: " + "; ".join(
        [
            "column 'caption': expected a text, got nothing",
            f"column 'jpg_0': {picture}, got int 3",
            f"column 'jpg_1': {picture}, got str ''",
            "column 'label_0': expected a number from 0 to 1, got float 1.5",
            "column 'id': expected a text or a whole number, got list []",
            "column 'weight': expected a number >= 0, got int -1",
        ]
    )


def test_row_24_a_parquet_text_that_is_no_text_is_a_data_error(tmp_path):
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 1, pyarrow.array([b"\xff\xfe"]).buffers())
    parquet.write_table(pyarrow.table({"prompt": broken, "image": [RED]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: rows 0 to 0 cannot be read: .*invalid start byte"):
        open_records(tmp_path / "a.parquet")[0]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([1.0], "a list of 2 numbers, one a picture"), ("x", "a list of 2 numbers"), ([1, "x"], "a list of 2 numbers")],
)
def test_row_24_scores_that_do_not_match_the_pictures_are_refused(tmp_path, scores, expected):
    row = {"prompt": "p", "images": ["a.png", "b.png"], "scores": scores}
    with pytest.raises(DataError, match=f"column 'scores': expected {expected}"):
        open_records(lines(tmp_path / "a.jsonl", [row]))[0]


def test_row_24_the_first_twenty_problems_of_a_table_are_shown_and_all_are_kept(tmp_path):
    broken: list[Any] = [
        {"prompt": None, "chosen": "a.png", "rejected": "a.png"},
        {"prompt": "p", "chosen": 1, "rejected": "a.png"},
        {"prompt": "p", "chosen": "a.png"},
        {"id": "same", "prompt": "p", "chosen": "a.png", "rejected": "a.png"},
        [1],
    ]
    (tmp_path / "a.png").write_bytes(RED)
    good = {"id": "same", "prompt": "p", "chosen": "a.png", "rejected": "a.png"}
    records = open_records(lines(tmp_path / "a.jsonl", [good, *broken * 5]))
    with pytest.raises(DataError) as caught:
        usable_records(records, quarantine=tmp_path / "quarantine.jsonl")
    first, *shown = str(caught.value).splitlines()
    assert first.startswith("25 of 26 records are unusable, more than the 1.0% allowed")
    assert len(shown) == 21 and shown[-1] == "... and 5 more"
    picture = "expected image bytes, a path, or {bytes, path}, of a clip perhaps a list of frames"
    for line, (where, problem) in zip(
        shown,
        [
            ("line 2", "column 'prompt': expected a text, got nothing"),
            ("line 3", f"column 'chosen': {picture}, got int 1"),
            ("line 4", f"column 'rejected': {picture}, got nothing"),
            ("record 4", "the id 'same' appears twice"),
            ("line 6", "expected an object with the columns prompt, id, chosen, rejected, got list [1]"),
        ],
        strict=False,
    ):
        assert where in line and problem in line
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 25


# ---------------------------------------------------------------- prompts


PROMPTS = {
    "empty": ("", ""),
    "a megabyte": ("red cat " * 2**17, "cut to 10,000 characters"),
    "a megabyte without a space": ("x" * 2**20, "cut to 10,000 characters"),
    "NUL": ("a\0cat\0", ""),
    "controls": ("".join(map(chr, [*range(32), *range(127, 160)])) + "\u2028\u2029\ufeff\uffff", ""),
    "right to left": ("\u05d7\u05ea\u05d5\u05dc \u202e\u0642\u0637\u0629\u202c red", ""),
    "combining": ("e" + "\u0301" * 5000, ""),
    "lone surrogates": ("\ud800 cat \udfff\ud83d", "half characters replaced"),
    "10,000 emoji": ("\U0001f408" * 10_000, ""),
    "families": ("\U0001f468\u200d\U0001f469\u200d\U0001f467 " * 3000, "cut to 10,000 characters"),
    "markup": ("<|endoftext|> %s {0} $x_1$ \\frac \x1b[31m", ""),
    "cut and surrogate": ("\ud800" * 10_001, "cut to 10,000 characters, half characters replaced"),
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.mark.parametrize("case", PROMPTS)
def test_row_25_every_prompt_is_taken_or_cut_with_a_count(tmp_path, tokenizer, case, caplog):
    prompt, change = PROMPTS[case]
    (tmp_path / "a.png").write_bytes(RED)
    row = {"prompt": prompt, "chosen": "a.png", "rejected": "a.png"}
    path = lines(tmp_path / "a.jsonl", [row, {**row, "prompt": "a plain one"}])
    log = logging.FileHandler(tmp_path / "log.txt", encoding="utf-8")
    began = time.perf_counter()

    kept = usable_records(open_records(path), quarantine=tmp_path / "quarantine.jsonl")
    record = kept[0]
    tokens = tokenizer(record.prompt, padding="max_length", truncation=True, max_length=16).input_ids
    store = write_store(tmp_path / "store", kept)
    log.emit(logging.makeLogRecord({"msg": "prompt: %s", "args": (record.prompt,)}))
    log.close()
    grid = labelled_grid([(record.prompt, [np.zeros((16, 16, 3), dtype=np.uint8)] * 2)])
    grid.save(tmp_path / "grid.png")

    assert time.perf_counter() - began < 2
    assert len(kept) == 2 and kept.quarantined == () and not (tmp_path / "quarantine.jsonl").exists()
    assert kept.mended == ({change: 1} if change else {}) and record.meta.get(PROMPT_CHANGED, "") == change
    assert not change or f"1 prompts: {change}" in caplog.text
    assert change or record.prompt == prompt
    assert len(record.prompt) <= MAX_PROMPT and len(tokens) == 16
    assert list(store) == list(read_store(tmp_path / "store")) == list(kept)
    assert (tmp_path / "log.txt").read_bytes().decode().startswith("prompt: ") and grid.height < 300


@given(prompt=st.text(st.characters(exclude_categories=())))
def test_row_25_only_half_characters_are_replaced(prompt):
    text, change = clean_prompt(prompt)
    assert len(text) == len(prompt) and text.encode().decode() == text
    assert all(a == b or "\ud800" <= a <= "\udfff" for a, b in zip(prompt, text, strict=True))
    assert bool(change) == (text != prompt)


def test_a_label_is_read_where_a_recipe_names_its_column(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "image": "a.png", "liked": liked} for liked in (True, 0, 1.0)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = open_records(tmp_path / "rows.jsonl", columns={"label": "liked"})
    assert [record.candidates[0].label for record in named] == [1.0, 0.0, 1.0]
    assert [record.candidates[0].label for record in open_records(tmp_path / "rows.jsonl")] == [None] * 3
    for wrong in ("cat", 2, 0.5):
        (tmp_path / "wrong.jsonl").write_text(json.dumps({**rows[0], "liked": wrong}) + "\n")
        with pytest.raises(DataError, match="column 'liked': expected true, false, 1 or 0, got"):
            list(open_records(tmp_path / "wrong.jsonl", columns={"label": "liked"}))
    pair = {"prompt": "p", "chosen": "a.png", "rejected": "b.png", "liked": True}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    with pytest.raises(
        DataError, match=r"data\.columns\.label goes with prompt, image, and not with prompt, chosen, rej"
    ):
        open_records(tmp_path / "pairs.jsonl", columns={"label": "liked"})
