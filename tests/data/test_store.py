"""Stores: what is written is read, and damage is found."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from diffpref.core.contracts import Candidate, Caption, Judgement, PromptMedia, Record, Score
from diffpref.core.errors import DataError
from diffpref.data import StoreWriter, open_records, read_store, write_store


def make(number: int) -> Record:
    scores = (Score("pickscore", "v1", 20.0 + number), Score("hps", "v2", 0.25))
    return Record(
        id=f"record-{number}",
        prompt=f"prompt {number} \u00fc",
        candidates=(
            Candidate(
                bytes=bytes([number % 256] * 50),
                sha256="ab",
                generator="shapes",
                seed=2**62 + number,
                captions=(Caption("prompt", "a"),),
                scores=scores,
            ),
            Candidate(path="b.png", label=0.5),
            Candidate(text="a text"),
        ),
        judgements=(Judgement(0, 1, 0.7, annotator="x"), Judgement(1, 2, 0.5, start=0.0, end=1.5)),
        source="test",
        meta={"split": "seen", "k": "v"},
        inputs=(PromptMedia(bytes=b"to be edited", sha256="cd"), PromptMedia("video", path="v.mp4")) * (number % 2),
    )


RECORDS = [make(number) for number in range(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "store"
    write_store(folder, RECORDS, {"steps": 8}, rows_per_part=130)
    return folder


def copy_of(folder: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_records_come_back_equal_by_position_and_in_order(folder):
    store = read_store(folder)
    assert len(store) == 300 and list(store) == RECORDS
    assert store[257] == RECORDS[257] and store[-1] == RECORDS[-1] and store[3:6] == RECORDS[3:6]
    with pytest.raises(IndexError):
        store[300]


def test_the_manifest_tells_what_is_inside(folder):
    manifest = read_store(folder).manifest
    assert manifest["format"] == 1 and manifest["schema_version"] == 2 and manifest["num_records"] == 300
    assert [part["num_records"] for part in manifest["parts"]] == [130, 130, 40]
    assert manifest["generator"] == {"steps": 8} and "pyarrow" in manifest["libraries"]


def test_equal_records_give_equal_bytes(folder, tmp_path):
    again = write_store(tmp_path / "again", iter(RECORDS), {"steps": 8}, rows_per_part=130)
    assert again.digest == read_store(folder).digest
    other = write_store(tmp_path / "other", RECORDS[:299], rows_per_part=130)
    assert other.digest != again.digest


def test_a_store_of_the_first_schema_is_still_read():
    store = read_store(Path(__file__).parent / "stores" / "schema-1")
    assert store.manifest["schema_version"] == 1
    assert list(store) == [
        Record(
            id="a",
            prompt="a red circle",
            candidates=(
                Candidate(
                    bytes=b"one",
                    sha256="ab",
                    generator="shapes",
                    seed=7,
                    captions=(Caption("prompt", "a"),),
                    scores=(Score("hps", "v2", 0.25),),
                ),
                Candidate(path="b.png", label=0.5),
            ),
            judgements=(Judgement(0, 1, 0.7, annotator="x"),),
            source="test",
            meta={"split": "seen"},
        ),
        Record("b", "", (Candidate(text="words"),)),
    ]


def test_row_groups_are_small(folder):
    from pyarrow import parquet

    assert parquet.ParquetFile(folder / "part-00000.parquet").metadata.row_group(0).num_rows == 64


def test_plain_datasets_reads_a_store(folder, tmp_path):
    import datasets

    table = datasets.load_dataset(
        "parquet", data_files=str(folder / "*.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert table.num_rows == 300
    row = table[5]
    assert row["prompt"] == RECORDS[5].prompt and row["candidates"][0]["bytes"] == RECORDS[5].candidates[0].bytes
    assert row["candidates"][0]["scores"][0] == {"name": "pickscore", "version": "v1", "value": 25.0}
    assert row["inputs"][1] == {"kind": "video", "bytes": None, "path": "v.mp4", "sha256": ""}
    assert row["meta"] == [{"key": "split", "value": "seen"}, {"key": "k", "value": "v"}]


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), StoreWriter(tmp_path / "store", rows_per_part=2) as writer:
        writer.extend(RECORDS[:5])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_not_overwritten_unless_asked(tmp_path):
    write_store(tmp_path / "store", RECORDS[:3])
    with pytest.raises(DataError, match="exists already"):
        write_store(tmp_path / "store", RECORDS[:2])
    assert len(write_store(tmp_path / "store", RECORDS[:2], replace=True)) == 2


def test_an_id_that_appears_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match="'record-1' appears twice"):
        write_store(tmp_path / "store", [make(1), make(1)])


@pytest.mark.parametrize("prompt", [7, "half a \ud83d"], ids=["number", "surrogate"])
def test_a_field_of_the_wrong_type_is_refused(tmp_path, prompt):
    bad = Record(id="a", prompt=prompt, candidates=())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="wrong type"):
        write_store(tmp_path / "store", [bad])


def test_row_18_a_flipped_byte_names_the_part(folder, tmp_path):
    copy, places = copy_of(folder, tmp_path), random.Random(0)
    for _ in range(20):
        part = copy / f"part-0000{places.randrange(3)}.parquet"
        data = part.read_bytes()
        place = places.randrange(len(data))
        part.write_bytes(data[:place] + bytes([data[place] ^ (1 << places.randrange(8))]) + data[place + 1 :])
        with pytest.raises(DataError, match=rf"{part.name}: its checksum differs"):
            read_store(copy)
        part.write_bytes(data)
    assert len(read_store(copy)) == 300


def test_a_cut_part_names_the_part(folder, tmp_path):
    copy = copy_of(folder, tmp_path)
    part = copy / "part-00002.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"part-00002\.parquet: .* bytes, expected"):
        read_store(copy)


def test_a_missing_part_is_named(folder, tmp_path):
    copy = copy_of(folder, tmp_path)
    (copy / "part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"part part-00000\.parquet is missing"):
        read_store(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "update diffpref"),
        ({"schema_version": 9}, "update diffpref"),
        ({"num_records": 299}, "promises 299"),
        ({"parts": 3}, "damaged"),
        ({"format": "x"}, "damaged"),
        ({"parts": [{"file": "../x", "num_records": 1, "bytes": 1, "sha256": ""}]}, "missing"),
    ],
)
def test_a_wrong_manifest_is_one_clear_line(folder, tmp_path, change, message):
    copy = copy_of(folder, tmp_path)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(DataError, match=message) as caught:
        read_store(copy)
    assert "\n" not in str(caught.value)


def test_wrong_counts_are_found_without_checksums(folder, tmp_path):
    copy = copy_of(folder, tmp_path)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["parts"][1]["num_records"] = 131
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"part-00001\.parquet: 130 records, expected 131"):
        read_store(copy, verify="counts")


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json"):
        read_store(tmp_path)


def test_open_records_opens_a_store(folder):
    assert open_records(folder)[2] == RECORDS[2]
