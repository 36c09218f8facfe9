"""TRL's dataset formats as records, and what a model then reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.data import open_records, pair_view, read_store, write_store
from diffpref.data.texts import answer_of, common_prompt, prompt_of, template_of


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


USER, BLUE, GREEN = said("user", "What colour is the sky?"), said("assistant", "Blue."), said("assistant", "Green.")
FORMATS: dict[str, tuple[dict[str, Any], Any, list[Any]]] = {
    # name: row, prompt, answers
    "pairs": ({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}, "The sky is", [" blue.", " green."]),
    "pairs, implicit": (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        "The sky is",
        [" blue.", " green."],
    ),
    "conversations": (
        {"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]},
        [USER],
        [[BLUE], [GREEN]],
    ),
    "conversations, implicit": ({"chosen": [USER, BLUE], "rejected": [USER, GREEN]}, [USER], [[BLUE], [GREEN]]),
    "conversations beside a text prompt": (
        {"prompt": "What colour is the sky?", "chosen": [USER, BLUE], "rejected": [USER, GREEN]},
        [USER],
        [[BLUE], [GREEN]],
    ),
    "several turns": (
        {"prompt": [USER], "chosen": [BLUE, said("user", "Sure?"), said("assistant", "Yes.")], "rejected": [GREEN]},
        [USER],
        [[BLUE, said("user", "Sure?"), said("assistant", "Yes.")], [GREEN]],
    ),
    "unpaired": ({"prompt": "The sky is", "completion": " blue.", "label": True}, "The sky is", [" blue."]),
    "unpaired conversation": ({"prompt": [USER], "completion": [GREEN], "label": False}, [USER], [[GREEN]]),
    "ranking": (
        {"prompt": "The sky is", "completions": [" blue.", " green.", " red."], "scores": [1.0, 0.5, None]},
        "The sky is",
        [" blue.", " green.", " red."],
    ),
    "answers alone": ({"prompt": "The sky is", "completion": " blue."}, "The sky is", [" blue."]),
}


def write(folder: Path, rows: list[dict[str, Any]], kind: str) -> Path:
    if kind == "jsonl":
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    import datasets

    table = datasets.Dataset.from_list(rows)
    if kind == "parquet":
        table.to_parquet(str(folder / "rows.parquet"))
        return folder / "rows.parquet"
    table.save_to_disk(str(folder / "saved"))
    return folder / "saved"


def read(folder: Path, row: dict[str, Any], kind: str = "jsonl", **options: Any) -> Record:
    (record,) = open_records(write(folder, [row], kind), texts=True, **options)
    return record


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "saved"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_read_as_trl_reads_it(name: str, kind: str, tmp_path: Path) -> None:
    row, prompt, answers = FORMATS[name]
    record = read(tmp_path, row, kind)
    assert prompt_of(record) == prompt
    assert [answer_of(record, number) for number in range(len(answers))] == answers


@pytest.mark.parametrize("name", FORMATS)
def test_a_store_keeps_the_record(name: str, tmp_path: Path) -> None:
    row, prompt, _ = FORMATS[name]
    record = read(tmp_path, row)
    write_store(tmp_path / "store", [record])
    (again,) = read_store(tmp_path / "store")
    assert again == record and prompt_of(again) == prompt


def test_labels_scores_weights_and_tools_are_kept(tmp_path: Path) -> None:
    labels = [read(tmp_path, FORMATS[name][0]).candidates[0].label for name in ("unpaired", "unpaired conversation")]
    assert labels == [1.0, 0.0]
    ranked = read(tmp_path, FORMATS["ranking"][0])
    assert [[score.value for score in one.scores] for one in ranked.candidates] == [[1.0], [0.5], []]
    row = {**FORMATS["pairs"][0], "score_chosen": 8, "score_rejected": 2.5, "weight": 2, "annotator": "a", "id": 7}
    pair = read(tmp_path, row)
    assert [one.scores[0].value for one in pair.candidates] == [8.0, 2.5]
    assert pair.id == "7" and pair.judgements[0].weight == 2.0 and pair.judgements[0].annotator == "a"
    assert pair_view([read(tmp_path, {**FORMATS["pairs"][0], "probability": 0.25})])[0].chosen == 1
    tools = [{"name": "look up", "parameters": {}}]
    assert template_of(read(tmp_path, {**FORMATS["conversations"][0], "tools": tools})) == {"tools": tools}


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("abc", "abd", "ab"),
        ("a", "b", ""),
        ("same", "same", "same"),
        ("a b", "a b c", "a b"),
        ([USER, BLUE], [USER, GREEN], [USER]),
    ],
)
def test_the_common_prompt(chosen: Any, rejected: Any, expected: Any) -> None:
    assert common_prompt(chosen, rejected) == expected


def test_the_common_prompt_is_trls(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    for name in ("pairs, implicit", "conversations, implicit"):
        row = FORMATS[name][0]
        assert common_prompt(row["chosen"], row["rejected"]) == trl.extract_prompt(row)["prompt"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "column 'prompt': expected a text or messages.*got int"),
        ({"prompt": "x", "chosen": None, "rejected": "b"}, "column 'chosen': .*got nothing"),
        ({"prompt": "x", "chosen": "a", "rejected": [BLUE]}, "give both alike"),
        ({"prompt": [USER], "completion": "blue", "label": 1}, "prompt holds messages and an answer is a text"),
        ({"prompt": "x", "completion": "y", "label": 2}, "column 'label': expected a number from 0 to 1"),
        ({"prompt": "x", "completions": ["y"], "scores": [1, 2]}, "a list of 1 numbers"),
        ({"prompt": "x", "completions": "y", "scores": [1]}, "a list of texts"),
        ({"prompt": [{"content": "no role"}], "completion": [BLUE]}, "expected a text or messages"),
        ({"prompt": "x", "picture": "y"}, "no texts to learn from.*found: picture, prompt"),
    ],
)
def test_what_is_not_text_is_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, row)


def test_columns_of_other_names_are_told(tmp_path: Path) -> None:
    row = {"q": "x", "good": "a", "bad": "b", "text": "unused"}
    record = read(tmp_path, row, columns={"prompt": "q", "chosen": "good", "rejected": "bad"})
    assert prompt_of(record) == "x" and answer_of(record, 1) == "b"
    with pytest.raises(DataError, match="unknown 'chosn'; did you mean 'chosen'"):
        read(tmp_path, row, columns={"chosn": "good"})
    with pytest.raises(DataError, match="no column 'better'"):
        read(tmp_path, row, columns={"chosen": "better"})


def test_half_characters_and_long_prompts_are_read(tmp_path: Path) -> None:
    record = read(tmp_path, {"prompt": "\ud800x" + "y" * 20_000, "chosen": "a", "rejected": "b"})
    assert record.prompt == "\ufffdx" + "y" * 20_000


def test_a_folder_of_several_splits_asks_for_one(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_list([FORMATS["pairs"][0]])
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(DataError, match="splits train, test"):
        open_records(tmp_path / "both", texts=True)
    assert len(open_records(tmp_path / "both" / "train", texts=True)) == 1


def test_a_picture_is_not_read_as_a_text() -> None:
    from diffpref.core.contracts import Candidate

    with pytest.raises(DataError, match="is no text"):
        answer_of(Record("r", "p", (Candidate(path="x.png"),)), 0)
