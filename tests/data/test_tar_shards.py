"""Tar shards: damage is never passed over, and what could reach outside or run is refused."""

from __future__ import annotations

import io
import json
import logging
import pickle
import random
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffpref.core.errors import DataError
from diffpref.data import encode_png, open_records, pair_view, usable_records
from diffpref.data.sources import index_source
from diffpref.data.tar import members

PICTURES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)


def jpeg(number: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(PICTURES[number]).save(file, "JPEG")
    return file.getvalue()


def write_tar(path: Path, files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def samples(prefix: str = "") -> dict[str, bytes]:
    files = {}
    for number in range(20):
        files[f"{prefix}{number:03d}.jpg"] = jpeg(number)
        files[f"{prefix}{number:03d}.txt"] = f"prompt {number} \u00fc\n".encode()
    return files


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return write_tar(tmp_path / "data" / "shard-0.tar", samples())


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


# ---------------------------------------------------------------- what is written is read


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./", "folder/" * 15], ids=["plain", "dot", "long"])
def test_samples_come_back_as_they_were_written(tmp_path, form, prefix):
    records = open_records(write_tar(tmp_path / "a.tar", samples(prefix), form))
    assert len(records) == 20
    for number, record in enumerate(records):
        assert record.id == f"{prefix.removeprefix('./')}{number:03d}"
        assert record.prompt == f"prompt {number} \u00fc" and record.candidates[0].bytes == jpeg(number)
    assert records[-1] == records[19] and records[3:5] == [records[3], records[4]]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_longer_than_a_header_and_beyond_ascii_are_read(tmp_path, form):
    name = "\u00fc" * 120
    (record,) = open_records(write_tar(tmp_path / "a.tar", {f"{name}.jpg": jpeg(0), f"{name}.txt": b"p"}, form))
    assert record.id == name


def test_several_shards_folders_and_json_columns(tmp_path):
    for shard in range(3):
        path = tmp_path / f"{shard}.tar"
        with tarfile.open(path, "w") as archive:
            for number in range(shard):  # the first is empty
                folder = tarfile.TarInfo(f"{shard}")
                folder.type = tarfile.DIRTYPE
                archive.addfile(folder)
                told = json.dumps({"caption": f"{shard}-{number}", "id": 10 * shard + number, "other": [1]}).encode()
                for name, content in {"PNG": encode_png(PICTURES[number]), "json": told}.items():
                    info = tarfile.TarInfo(f"{shard}/{number}.{name}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    records = open_records(tmp_path)
    assert [(record.id, record.prompt) for record in records] == [("10", "1-0"), ("20", "2-0"), ("21", "2-1")]
    assert len(usable_records(records)) == 3


def test_chosen_and_rejected_members_are_pairs(tmp_path):
    chosen, rejected = encode_png(PICTURES[0]), encode_png(PICTURES[1])
    files = {"000.chosen.png": chosen, "000.rejected.png": rejected, "000.txt": b"a cat"}
    (record,) = records = open_records(write_tar(tmp_path / "a.tar", files))
    assert record.prompt == "a cat" and [one.bytes for one in record.candidates] == [chosen, rejected]
    assert [(pair.chosen, pair.rejected) for pair in pair_view(records)] == [(0, 1)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.jpg": b"a", "2.jpg": b"b", "1.txt": b"c"}, "a.tar: the members of key '1' do not stand together"),
        ({"1.jpg": b"a", "1.png": b"b", "1.txt": b"c"}, "a.tar, 1: column 'image' is given by two members"),
        ({"1.jpg": b"a", "1.json": b"[1]"}, "a.tar, 1.json: expected an object, got list"),
        ({"1.jpg": b"a", "1.json": b"{"}, "a.tar, 1.json: cannot be read as json"),
        ({"1.jpg": b"a", "1.json": b"[" * 100_000}, "a.tar, 1.json: cannot be read as json"),
        ({"1.jpg": b"a", "1.txt": b"\xff"}, "a.tar, 1.txt: cannot be read as txt"),
        ({}, "holds no rows"),
    ],
)
def test_samples_that_make_no_row_are_named_with_their_shard(tmp_path, files, message):
    with pytest.raises(DataError) as caught:
        open_records(write_tar(tmp_path / "a.tar", files))[0]
    assert message in str(caught.value)


def test_a_broken_sample_is_set_aside_not_the_shard(tmp_path):
    files = {**samples(), "007.txt": b"\xff"}
    kept = usable_records(open_records(write_tar(tmp_path / "a.tar", files)), limit=0.05)
    assert len(kept) == 19 and [bad.index for bad in kept.quarantined] == [7]


# ---------------------------------------------------------------- the index


def test_an_index_is_written_and_holds_what_is_read(shard):
    (entry,) = index_source(shard.parent)
    assert (entry.file, entry.bytes, entry.num_rows) == ("shard-0.tar", shard.stat().st_size, 20)
    assert list(open_records(shard.parent)) == list(open_records(shard.parent, verify="counts"))
    assert [record.prompt for record in open_records(shard)] == [f"prompt {number} \u00fc" for number in range(20)]


def test_a_shard_that_the_index_lacks_or_that_is_gone_is_refused(shard):
    index_source(shard.parent)
    other = write_tar(shard.parent / "shard-1.tar", samples("b"))
    with pytest.raises(DataError, match=r"shard-1\.tar: is not in index\.json"):
        open_records(shard.parent)
    index_source(shard.parent)
    assert len(open_records(shard.parent)) == 40
    other.unlink()
    with pytest.raises(DataError, match=r"shard-1\.tar: cannot be read \(No such file"):
        open_records(shard.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2, "files": [{"new": 1}]}, "update diffpref"),
        ({"format": "x"}, "damaged"),
        ({"files": 3}, "damaged"),
        ({"files": [{"file": "shard-0.tar", "bytes": "many", "num_rows": 20, "sha256": ""}]}, "damaged"),
        ({"files": [{"file": "shard-0.tar"}]}, "damaged"),
    ],
)
def test_a_wrong_index_is_one_clear_line(shard, change, message):
    index_source(shard.parent)
    index = shard.parent / "index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), **change}))
    with pytest.raises(DataError, match=message) as caught:
        open_records(shard.parent)
    assert "\n" not in str(caught.value)


def test_a_count_that_differs_from_the_index_is_noticed(shard):
    index_source(shard.parent)
    index = shard.parent / "index.json"
    index.write_text(index.read_text().replace('"num_rows": 20', '"num_rows": 21'))
    with pytest.raises(DataError, match=r"shard-0\.tar: 20 of 21 samples readable, last key '019'"):
        open_records(shard.parent)


# ---------------------------------------------------------------- damage


def cuts(data: bytes) -> list[int]:
    """Offsets to cut at: 18 anywhere before the padding, and the two that hurt least."""
    last = len(data.rstrip(b"\0"))
    places = random.Random(0)
    return [*(places.randrange(last) for _ in range(18)), -(-last // 512) * 512, last]


def whole_samples(data: bytes, path: Path) -> int:
    """How many samples are there in full, by their headers in the whole file."""
    ends: dict[str, int] = {}
    for member in members(path):
        ends[member.key] = member.start + member.size
    return sum(end <= len(data) for end in ends.values())


@pytest.mark.parametrize("indexed", [True, False], ids=["index", "bare"])
def test_row_17_a_cut_shard_is_named_with_what_is_left_of_it(shard, indexed):
    if indexed:
        index_source(shard.parent)
    data = shard.read_bytes()
    left = {cut: whole_samples(data[:cut], shard) for cut in cuts(data)}
    assert len(left) == 20
    for cut, whole in left.items():
        shard.write_bytes(data[:cut])
        with pytest.raises(DataError, match=r"shard-0\.tar: .*samples readable") as caught:
            open_records(shard.parent)
        told = str(caught.value).rpartition("; ")[2].split(" ")
        assert whole - 1 <= int(told[0]) <= whole  # of the last one nobody knows whether more was to come
        assert not indexed or told[1:3] == ["of", "20"]
        assert told[0] == "0" or told[-1] == f"'{int(told[0]) - 1:03d}'"


def test_row_17_nothing_but_padding_can_be_cut_unnoticed(shard):
    data = shard.read_bytes()
    end = -(-len(data.rstrip(b"\0")) // 512) * 512 + 1024
    shard.write_bytes(data[:end])
    assert len(open_records(shard.parent)) == 20
    shard.write_bytes(data[: end - 1])
    with pytest.raises(DataError, match="cut short"):
        open_records(shard.parent)
    shard.write_bytes(data + data)
    with pytest.raises(DataError, match="something follows the end"):
        open_records(shard.parent)


def test_row_17_bad_shards_are_left_out_with_a_warning_and_counted(shard, caplog):
    data = shard.read_bytes()
    write_tar(shard.parent / "shard-1.tar", samples("b"))
    for indexed in (False, True):
        shard.write_bytes(data)
        if indexed:
            index_source(shard.parent)
        for cut in cuts(data):
            shard.write_bytes(data[:cut])
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                records: Any = open_records(shard.parent, on_bad_shard="skip")
            assert len(records) == 20 and records[0].id == "b000"
            assert list(records.rows.skipped) == ["shard-0.tar"]
            assert "shard left out" in caplog.text and "shard-0.tar" in caplog.text
    (shard.parent / "shard-1.tar").write_bytes(b"")
    with pytest.raises(DataError, match="none of 2 shards can be read"):
        open_records(shard.parent, on_bad_shard="skip")
    with pytest.raises(DataError, match="on_bad_shard is 'raise' or 'skip', got 'skipp'"):
        open_records(shard.parent, on_bad_shard="skipp")


def test_row_18_a_flipped_byte_names_the_shard(shard):
    write_tar(shard.parent / "shard-1.tar", samples("b"))
    index_source(shard.parent)
    data, places = shard.read_bytes(), random.Random(0)
    for _ in range(20):
        place = places.randrange(len(data))
        shard.write_bytes(data[:place] + bytes([data[place] ^ (1 << places.randrange(8))]) + data[place + 1 :])
        with pytest.raises(DataError, match=r"shard-0\.tar"):
            open_records(shard.parent)
    shard.write_bytes(data)
    assert len(open_records(shard.parent)) == 40


# ---------------------------------------------------------------- malice


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **fields: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def extended(records: bytes) -> bytes:
    return member("x", tarfile.XHDTYPE, len(records)) + records.ljust(-(-len(records) // 512) * 512, b"\0")


END = bytes(1024)
MALICE = {
    "parent": (member("../evil.txt"), "leads outside"),
    "parent inside": (member("a/../../evil.txt"), "leads outside"),
    "absolute": (member("/tmp/evil.txt"), "leads outside"),
    "drive": (member("C:evil.txt"), "leads outside"),
    "backslash": (member("..\\evil.txt"), "leads outside"),
    "long parent": (member("../" * 60 + "evil.txt"), "leads outside"),
    "pax parent": (extended(b"20 path=../evil.txt\n") + member("a.txt"), "leads outside"),
    "control": (member("a\nb.txt"), "leads outside"),
    "symlink": (member("a.txt", tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
    "hard link": (member("a.txt", tarfile.LNKTYPE, linkname="../evil.txt"), "is a link"),
    "long link": (member("a.txt", tarfile.LNKTYPE, linkname="../" * 60), "unknown kind|a link"),
    "character device": (member("a.txt", tarfile.CHRTYPE, devmajor=1, devminor=5), "is a device"),
    "block device": (member("a.txt", tarfile.BLKTYPE), "is a device"),
    "pipe": (member("a.txt", tarfile.FIFOTYPE), "is a pipe"),
    "sparse": (member("a.txt", tarfile.GNUTYPE_SPARSE), "is a sparse file"),
    "pax sparse": (extended(b"22 GNU.sparse.major=1\n") + member("a.txt"), "sparse file"),
    "folder with content": (member("a.txt", tarfile.DIRTYPE, 512) + bytes(512), "unknown kind"),
    "unknown kind": (member("a.txt", b"Q"), "unknown kind"),
    "empty members": (member("a.txt") * 100_000, "more than 1,000 members are empty"),
    "huge": (member("a.jpg", size=2**62), "declares 4,611,686,018,427,387,904 bytes"),
    "huge for a header": (member("a.jpg", size=8**11 - 1), "declares 8,589,934,591 bytes"),
    "more than there is": (member("a.jpg", size=2**20), "cut short"),
    "huge by pax": (extended(b"28 size=99999999999999999\n".replace(b"28", b"26")) + member("a.jpg"), "declares"),
    "huge extended header": (member("x", tarfile.XHDTYPE, 2**40), "an extended header of 1,099,511,627,776 bytes"),
    "long extended header": (member("x", tarfile.XHDTYPE, 10_000), "cut short"),
    "size of strange digits": (extended("11 size=\u00b2\n".encode()) + member("a.jpg"), "damaged extended header"),
    "length of many digits": (extended(b"000006000" + b"0" * 5991) + member("a.jpg"), "damaged extended header"),
    "no length": (extended(b"path=a\n") + member("a.jpg"), "damaged extended header"),
    "name that is no text": (member("a.txt").replace(b"a.txt", b"\xff.txt"), "no tar header|not UTF-8"),
    "no name": (member(""), "a kind that is not read"),
    "compressed": (b"\x1f\x8b" + bytes(600), "no tar header at byte 0"),
}


@pytest.mark.parametrize("case", MALICE)
def test_row_19_a_malicious_shard_is_refused_and_touches_nothing(tmp_path, case):
    data, message = MALICE[case]
    (tmp_path / "data").mkdir()
    (tmp_path / "evil.txt").write_text("outside")
    (tmp_path / "data" / "a.tar").write_bytes(data + END)
    before, began = contents(tmp_path), time.process_time()
    with pytest.raises(DataError, match=message) as caught:
        open_records(tmp_path / "data")
    assert time.process_time() - began < 1
    assert "a.tar" in str(caught.value) and "\n" not in str(caught.value)
    assert contents(tmp_path) == before and (tmp_path / "evil.txt").read_text() == "outside"


def test_row_19_many_small_extended_records_take_no_time(tmp_path):
    data = extended(b"4 =\n" * 4000) * 50 + member("a.bad") + END
    (tmp_path / "a.tar").write_bytes(data)
    began = time.process_time()
    with pytest.raises(DataError):
        open_records(tmp_path / "a.tar")
    assert time.process_time() - began < 1


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def payload(marker: Path, kind: str) -> bytes:
    if kind != "npy":
        return pickle.dumps(Payload(marker))
    file = io.BytesIO()
    np.save(file, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    return file.getvalue()


def test_row_20_the_payload_would_run(marker):
    pickle.loads(payload(marker, "pkl")).close()
    assert marker.exists()


@pytest.mark.parametrize("kind", ["pkl", "pickle", "pyd", "pth", "pt", "bin", "ckpt", "py"])
def test_row_20_members_that_could_hold_code_are_refused(tmp_path, marker, kind):
    files = {"000.jpg": jpeg(0), "000.txt": b"p", f"000.{kind}": payload(marker, kind)}
    with pytest.raises(DataError, match=rf"member '000\.{kind}' is of a kind that is not read; allowed: avi, bmp"):
        open_records(write_tar(tmp_path / "a.tar", files))
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["pkl", "pth", "npy", "tar", "parquet", "jsonl", "png"])
def test_row_20_a_source_that_is_a_pickle_is_refused(tmp_path, marker, kind):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"a.{kind}").write_bytes(payload(marker, kind))
    (tmp_path / "data" / "a.txt").write_text("p")
    for source in (tmp_path / "data", tmp_path / "data" / f"a.{kind}"):
        with pytest.raises(DataError):
            usable_records(open_records(source))
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_row_20_an_array_of_objects_is_set_aside_and_never_unpickled(tmp_path, marker, kind):
    content = payload(marker, "npy")
    if kind == "npz":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("frames.npy", content)
        content = file.getvalue()
    files = {
        name.replace("003.jpg", f"003.{kind}"): content if name == "003.jpg" else c for name, c in samples().items()
    }
    records = open_records(write_tar(tmp_path / "a.tar", files))
    kept = usable_records(records, limit=0.5)
    assert [bad.id for bad in kept.quarantined] == ["003"] and not marker.exists()
    assert "Object arrays cannot be loaded" in kept.quarantined[0].reason


def test_row_20_a_pickle_that_calls_itself_a_picture_is_set_aside(tmp_path, marker):
    records = open_records(write_tar(tmp_path / "a.tar", {**samples(), "003.jpg": payload(marker, "pkl")}))
    kept = usable_records(records, limit=0.05)
    assert [bad.id for bad in kept.quarantined] == ["003"] and not marker.exists()


@pytest.mark.parametrize("source", ["pipe:touch {}", "pipe:curl x > {}", "http://host/{}", "s3://b/{}", "file:{}"])
def test_row_20_commands_and_addresses_are_no_sources(marker, source):
    with pytest.raises(DataError, match="never a command or an address"):
        open_records(source.format(marker))
    assert not marker.exists()
