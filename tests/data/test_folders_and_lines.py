"""Lines of JSON and folders of pictures: read one at a time, and what is wrong is named."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from diffpref.core.errors import DataError
from diffpref.data import encode_png, open_records, usable_records
from diffpref.data.clips import check_picture
from diffpref.data.folder import MAX_CAPTION, PictureFolder
from diffpref.data.jsonl import MAX_LINE, JsonLines
from diffpref.data.sources import index_source

PICTURE = encode_png(np.full((4, 4, 3), 100, dtype=np.uint8))
ROW = {"prompt": "p", "chosen": "a.png", "rejected": "b.png"}


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


# ---------------------------------------------------------------- lines


def test_lines_are_read_by_position_past_empty_ones(tmp_path):
    path = write(tmp_path / "a.jsonl", "\ufeff" + json.dumps({"n": 0}), "", "   ", {"n": 1}, "\r", {"n": 2})
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # the last line need not end
    rows = JsonLines([path])
    assert [rows[index]["n"] for index in (2, 0, 1)] == [2, 0, 1]
    assert [rows.where(index) for index in range(3)] == [f"{path}, line {number}" for number in (1, 4, 6)]
    assert rows.counts == {path: 3} and rows.columns == ["n"]


def test_several_files_are_one_sequence(tmp_path):
    files = [
        write(tmp_path / "a.jsonl", {"n": 0}, {"n": 1}),
        write(tmp_path / "b.jsonl"),
        write(tmp_path / "c.jsonl", {"n": 2}),
    ]
    rows = JsonLines(files)
    assert [rows[index]["n"] for index in range(len(rows))] == [0, 1, 2]
    assert rows.where(2) == f"{files[2]}, line 1" and list(rows.counts.values()) == [2, 0, 1]


def test_a_large_file_takes_the_memory_of_a_line(tmp_path):
    line = json.dumps({**ROW, "filler": "x" * 1000}) + "\n"
    (tmp_path / "a.jsonl").write_text(line * 20_000)
    tracemalloc.start()
    try:
        records = open_records(tmp_path / "a.jsonl")
        for index in range(0, 20_000, 1000):
            assert records[index].id == f"{index:08d}"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(records) == 20_000 and peak < 2_000_000 < len(line) * 20_000 / 10


def test_a_line_that_is_too_long_is_refused_with_its_number(tmp_path):
    write(tmp_path / "a.jsonl", ROW, '{"prompt": "' + "x" * MAX_LINE + '"}')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: longer than the 16,777,216 bytes allowed"):
        open_records(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": ', "line 3: not JSON"),
        (b"\xff\xfe", "line 3: cannot be read as text"),
        (b"[" * 200_000, "line 3: not JSON"),
        (b'{"prompt": ' + b"9" * 5000 + b"}", "line 3: not JSON"),
        (b'"text"', "line 3: expected an object with the columns prompt, chosen, rejected, got str"),
        (b"null", "line 3: expected an object"),
        (b'{"prompt": "p"} {"prompt": "p"}', "line 3: not JSON"),
    ],
    ids=["cut", "bytes", "deep", "digits", "text", "null", "two"],
)
def test_a_broken_line_is_set_aside_with_its_number(tmp_path, line, reason):
    (tmp_path / "a.jsonl").write_bytes(json.dumps(ROW).encode() + b"\n\n" + line + b"\n" + json.dumps(ROW).encode())
    kept = usable_records(open_records(tmp_path), limit=0.4, decode=False, quarantine=tmp_path / "q" / "bad.jsonl")
    assert [record.id for record in kept] == ["00000000", "00000002"]
    (bad,) = kept.quarantined
    assert bad.index == 1 and reason in bad.reason and len(bad.reason) < 500
    assert json.loads((tmp_path / "q" / "bad.jsonl").read_text())["reason"] == bad.reason


@pytest.mark.parametrize("name", ["/dev/zero", "pipe", "."])
def test_a_picture_that_is_no_file_is_set_aside_and_never_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.png").write_bytes(PICTURE)
    good = {"prompt": "p", "chosen": "a.png", "rejected": "a.png"}
    records = open_records(write(tmp_path / "a.jsonl", good, {**good, "rejected": name}))
    kept = usable_records(records, limit=0.5, check=check_picture)
    assert len(kept) == 1 and ["is no file" in bad.reason for bad in kept.quarantined] == [True]


def test_values_as_deep_as_json_allows_are_set_aside(tmp_path):
    for depth in range(100, 1100, 25):
        deep = '{"chosen": "a.png", "rejected": "b.png", "prompt": ' + "[" * depth + "]" * depth + "}"
        kept = usable_records(open_records(write(tmp_path / "a.jsonl", ROW, deep)), limit=0.5, decode=False)
        assert [bad.index for bad in kept.quarantined] == [1]


def test_a_file_that_goes_or_shrinks_is_named(tmp_path):
    records = open_records(write(tmp_path / "a.jsonl", ROW, ROW))
    write(tmp_path / "a.jsonl", ROW)
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: not JSON"):
        records[1]
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: cannot be read \(No such file"):
        records[0]


def test_lines_that_were_lost_are_noticed_by_the_index(tmp_path):
    path = write(tmp_path / "a.jsonl", ROW, ROW)
    (entry,) = index_source(path)
    assert entry.num_rows == 2 and len(open_records(tmp_path)) == len(open_records(path)) == 2
    write(path, ROW)
    for source in (path, tmp_path):
        with pytest.raises(DataError, match=r"a\.jsonl: .* bytes, expected"):
            open_records(source)


# ---------------------------------------------------------------- folders


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name in ("cat.png", "sub/dog.v2.PNG", "sub/deeper/cat.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PICTURE)
        (folder / name).with_suffix(".txt").write_text(f"\ufeff caption of {name} \u00fc\r\n")
    return folder


def test_pictures_are_records_in_the_order_of_their_names(pictures):
    records = usable_records(open_records(pictures))
    names = ["cat.png", "sub/deeper/cat.png", "sub/dog.v2.PNG"]
    assert [record.id for record in records] == ["cat", "sub/deeper/cat", "sub/dog.v2"]
    assert [record.prompt for record in records] == [f" caption of {name} \u00fc" for name in names]
    assert [record.candidates[0].path for record in records] == [str(pictures / name) for name in names]


def test_hidden_files_and_what_is_no_picture_are_passed_over(pictures):
    for name in (".hidden.png", ".git/a.png", "sub/.cache/b.png", "png", "notes.txt", "a.pkl"):
        (pictures / name).parent.mkdir(exist_ok=True)
        (pictures / name).write_bytes(PICTURE)
    assert len(PictureFolder(pictures)) == 3


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        (None, "lost.png: no caption; expected lost.txt beside it"),
        (b"\xff", "lost.txt: cannot be read as text"),
        ("pipe", "lost.txt: is no file"),
        (b"x" * (MAX_CAPTION + 1), "lost.txt: longer than the 1,048,576 bytes allowed"),
    ],
    ids=["missing", "bytes", "pipe", "long"],
)
def test_a_picture_without_a_usable_caption_is_set_aside(pictures, caption, reason):
    (pictures / "lost.png").write_bytes(PICTURE)
    if caption == "pipe":
        os.mkfifo(pictures / "lost.txt")
    elif caption is not None:
        (pictures / "lost.txt").write_bytes(caption)
    kept = usable_records(open_records(pictures), limit=0.25)
    assert len(kept) == 3 and [reason in bad.reason for bad in kept.quarantined] == [True]


def test_two_pictures_of_one_caption_are_not_one_record(pictures):
    (pictures / "cat.jpg").write_bytes(PICTURE)
    kept = usable_records(open_records(pictures), limit=0.25)
    assert len(kept) == 3 and ["'cat' appears twice" in bad.reason for bad in kept.quarantined] == [True]


def test_a_name_that_is_no_text_is_set_aside_and_written_down(pictures, tmp_path):
    (pictures / os.fsdecode(b"\xff.png")).write_bytes(PICTURE)
    (pictures / os.fsdecode(b"\xff.txt")).write_text("p")
    (pictures / os.fsdecode(b"\xfe.png")).write_bytes(PICTURE)
    kept = usable_records(open_records(pictures), limit=0.5, quarantine=tmp_path / "quarantine.jsonl")
    assert len(kept) == 3 and len(kept.quarantined) == 2
    written = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [entry["reason"] for entry in written] == [bad.reason for bad in kept.quarantined]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_not_passed_over(pictures):
    (pictures / "sub").chmod(0)
    try:
        with pytest.raises(DataError, match="sub: cannot be read"):
            open_records(pictures)
    finally:
        (pictures / "sub").chmod(0o700)


def test_the_index_of_a_folder_covers_captions(pictures):
    assert [(entry.file, entry.num_rows) for entry in index_source(pictures)][::3] == [("cat.png", 1), ("cat.txt", 0)]
    assert len(open_records(pictures)) == 3
    (pictures / "new.png").write_bytes(PICTURE)
    with pytest.raises(DataError, match=r"new\.png: is not in index\.json"):
        open_records(pictures)
    (pictures / "new.png").unlink()
    (pictures / "cat.txt").write_text("changed")
    with pytest.raises(DataError, match=r"cat\.txt: .* bytes, expected"):
        open_records(pictures)
    (pictures / "cat.txt").unlink()
    with pytest.raises(DataError, match=r"cat\.txt: is in the index, but cannot be read"):
        open_records(pictures)
