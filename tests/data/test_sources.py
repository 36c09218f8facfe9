"""Plain tables of chosen and rejected images, and what becomes of unusable rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from diffpref.core.contracts import Judgement
from diffpref.core.errors import DataError
from diffpref.data import encode_png, open_records, pair_view, usable_records

RED, BLUE = (encode_png(np.full((4, 4, 3), value, dtype=np.uint8)) for value in (10, 200))


def write_parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_jsonl(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_parquet_with_bytes(tmp_path):
    rows = [{"prompt": f"p{i}", "chosen": RED, "rejected": BLUE} for i in range(3)]
    records = open_records(write_parquet(tmp_path / "a.parquet", rows))
    assert len(records) == 3 and records[1].prompt == "p1" and records[-1].id == "00000002"
    assert records[0].candidates[0].bytes == RED and records[0].candidates[1].bytes == BLUE
    assert records[0].judgements == (Judgement(0, 1, 1.0),)
    assert [(pair.chosen, pair.rejected) for pair in pair_view(records)] == [(0, 1)] * 3


def test_parquet_with_hugging_face_images_and_ids_in_a_folder(tmp_path):
    for part in range(2):
        rows = [
            {"id": f"{part}-{i}", "prompt": "p", "chosen": {"bytes": RED, "path": None}, "rejected": {"bytes": BLUE}}
            for i in range(2)
        ]
        write_parquet(tmp_path / f"{part}.parquet", rows)
    assert [record.id for record in open_records(tmp_path)] == ["0-0", "0-1", "1-0", "1-1"]


def test_jsonl_with_paths_relative_to_the_table(tmp_path):
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "blue.png").write_bytes(BLUE)
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p", "chosen": "red.png", "rejected": "blue.png"}])
    records = usable_records(open_records(tmp_path))
    assert len(records) == 1 and records[0].candidates[0].path == str(tmp_path / "red.png")


@pytest.mark.parametrize("writer", [write_parquet, write_jsonl])
def test_missing_columns_are_named_with_what_is_needed(tmp_path, writer):
    suffix = "parquet" if writer is write_parquet else "jsonl"
    path = writer(tmp_path / f"a.{suffix}", [{"prompt": "p", "picture": "x"}])
    with pytest.raises(DataError, match=r"no column chosen, rejected; needed are prompt .* found: picture, prompt"):
        open_records(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": None, "chosen": "red.png", "rejected": "red.png"}, "column 'prompt': expected a text, got nothing"),
        (
            {"prompt": "p", "chosen": 7, "rejected": "red.png"},
            "got int 7",
        ),
        (
            {"prompt": "p", "chosen": "red.png", "rejected": None},
            "{bytes, path}, of a clip perhaps a list of frames, got nothing",
        ),
        ({"prompt": "p", "chosen": "red.png"}, "column 'rejected': expected image bytes"),
        ({"prompt": "p", "chosen": "red.png", "rejected": "lost.png"}, "lost.png: cannot be read"),
        ({"prompt": "p", "chosen": "red.png", "rejected": "a.jsonl"}, "cannot be decoded"),
        ({"id": "0", "prompt": "p", "chosen": "red.png", "rejected": "red.png"}, "the id '0' appears twice"),
        ([1], "expected an object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unusable_rows_are_set_aside_with_the_reason(tmp_path, row, reason):
    (tmp_path / "red.png").write_bytes(RED)
    good = [{"id": str(i), "prompt": "p", "chosen": "red.png", "rejected": "red.png"} for i in range(3)]
    records = open_records(write_jsonl(tmp_path / "a.jsonl", [*good, row]))
    kept = usable_records(records, limit=0.25, quarantine=tmp_path / "run" / "quarantine.jsonl")
    assert [record.id for record in kept] == ["0", "1", "2"] and kept[2].id == "2"
    (bad,) = kept.quarantined
    assert bad.index == 3 and reason in bad.reason
    assert json.loads((tmp_path / "run" / "quarantine.jsonl").read_text())["reason"] == bad.reason
    with pytest.raises(DataError, match=r"1 of 4 records are unusable, more than the 1\.0% allowed"):
        usable_records(records)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "holds no rows"),
        ("a.jsonl", "{oops\n", "line 1: not JSON"),
        ("a.jsonl", b"\xff\xfe\x00", "cannot be read as text"),
        ("a.parquet", "not parquet", "not a readable parquet file"),
        ("a.txt", "x", "holds no preference data"),
    ],
)
def test_files_that_hold_no_data_are_refused_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        open_records(path)
    assert "\n" not in str(caught.value)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        open_records(tmp_path / "nowhere")
