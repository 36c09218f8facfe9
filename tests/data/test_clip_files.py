"""Clips of every kind of file are the same frames; what is no clip is one line."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffpref.core.contracts import Candidate, Record
from diffpref.core.errors import DataError
from diffpref.data import ClipCut, View, encode_png, open_records, usable_records
from diffpref.data.clips import (
    candidate_bytes,
    candidate_digest,
    check_clip,
    check_picture,
    cut_clip,
    read_clip,
    read_frames,
    read_media,
)
from diffpref.data.footage import open_footage, pack_folder, pack_frames, with_speed

FRAMES = np.random.default_rng(0).integers(0, 256, (7, 24, 32, 3), dtype=np.uint8)


def saved(array: Any, **more: Any) -> bytes:
    file = io.BytesIO()
    if more:
        np.savez(file, frames=array, **more)
    else:
        np.save(file, array, allow_pickle=True)
    return file.getvalue()


def animated(kind: str, frames: np.ndarray = FRAMES, **options: Any) -> bytes:
    file = io.BytesIO()
    first, *others = map(Image.fromarray, frames)
    first.save(file, format=kind, save_all=True, append_images=others, **options)
    return file.getvalue()


def encoded(path: Path, frames: np.ndarray = FRAMES, rate: int = 12, codec: str = "ffv1") -> Path:
    """Write a video file, lossless unless another codec is asked for."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


PACKED = pack_frames([("png", encode_png(frame)) for frame in FRAMES], 12.0)


@pytest.mark.parametrize(
    ("content", "fps"),
    [
        (saved(FRAMES), None),
        (saved(FRAMES, fps=12), 12.0),
        (PACKED, 12.0),
        (pack_frames([("png", encode_png(frame)) for frame in FRAMES]), None),
        (animated("WEBP", lossless=True, duration=125), 8.0),
        (animated("PNG", duration=125), 8.0),
    ],
    ids=["npy", "npz", "packed", "packed without speed", "webp", "png"],
)
def test_bytes_and_paths_of_every_kind_give_the_frames(tmp_path: Path, content: bytes, fps: float | None) -> None:
    (tmp_path / "clip").write_bytes(content)
    for candidate in (Candidate(bytes=content), Candidate(path=str(tmp_path / "clip"))):
        clip = read_clip(candidate)
        assert np.array_equal(clip.frames, FRAMES) and clip.fps == fps
        cut, places = cut_clip(candidate, ClipCut(3, stride=2), View(start=1.0))
        assert places == [2, 4, 6] and np.array_equal(cut.frames, FRAMES[places]) and cut.fps == fps
        assert [np.asarray(one).tolist() for one in read_frames(candidate, 2)] == FRAMES[[0, 6]].tolist()
        assert candidate_digest(candidate) == candidate_digest(Candidate(bytes=content))


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_a_video_file_gives_its_frames_and_speed(tmp_path: Path, suffix: str) -> None:
    path = encoded(tmp_path / f"clip.{suffix}")
    for candidate in (Candidate(path=str(path)), Candidate(bytes=path.read_bytes())):
        clip = read_clip(candidate)
        assert np.array_equal(clip.frames, FRAMES) and clip.fps == 12
        cut, places = cut_clip(candidate, ClipCut(3, fps=6.0))
        assert places == [1, 3, 5] and np.array_equal(cut.frames, FRAMES[places])


def test_an_mp4_is_read_and_one_that_is_cut_short_is_not(tmp_path: Path) -> None:
    path = encoded(tmp_path / "clip.mp4", FRAMES.repeat(3, axis=0), 24, "mpeg4")
    clip = read_clip(Candidate(path=str(path)))
    assert clip.frames.shape == (21, 24, 32, 3) and clip.fps == 24
    whole = path.read_bytes()
    for stop in (20, len(whole) // 2, len(whole) - 1):
        with pytest.raises(DataError, match=r"^a\.mp4: cannot be decoded: ") as caught:
            read_clip(Candidate(bytes=whole[:stop]), name="a.mp4")
        assert "\n" not in str(caught.value)


def test_frames_that_an_encoder_left_out_because_nothing_moved_are_there_again() -> None:
    still = FRAMES[[0, 0, 0, 1, 2, 2]]
    for kind in ("WEBP", "PNG"):
        content = animated(kind, still, duration=125, **({"lossless": True} if kind == "WEBP" else {}))
        clip = read_clip(Candidate(bytes=content))
        assert np.array_equal(clip.frames, still) and clip.fps == 8
    uneven = read_clip(Candidate(bytes=animated("PNG", FRAMES[:3], duration=[100, 150, 260])))
    assert len(uneven.frames) == 3 and uneven.fps == pytest.approx(1000 * 3 / 510)


def test_a_folder_of_frames_is_a_clip_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for number, frame in enumerate(FRAMES.repeat(2, axis=0)):
        (tmp_path / f"frame_{number}.png").write_bytes(encode_png(frame))
    (tmp_path / "notes.txt").write_text("not a frame")
    candidate = Candidate(path=str(tmp_path))
    assert np.array_equal(read_clip(candidate).frames, FRAMES.repeat(2, axis=0))
    assert candidate_bytes(candidate) == pack_folder(tmp_path)
    assert candidate_digest(candidate) == candidate_digest(Candidate(bytes=pack_folder(tmp_path)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: a folder without pictures; the frames of a clip are expected"):
        read_clip(Candidate(path=str(tmp_path / "empty")))


def test_a_speed_is_put_beside_what_tells_none(tmp_path: Path) -> None:
    (tmp_path / "clip.npy").write_bytes(saved(FRAMES))
    for source in (saved(FRAMES), str(tmp_path / "clip.npy"), pack_frames([("png", encode_png(FRAMES[0]))])):
        told = with_speed(source, 7.5)
        assert told is not None and told == with_speed(source, 7.5) and open_footage(told).fps == 7.5
    assert with_speed(PACKED, 7.5) is None and with_speed(animated("PNG", duration=125), 7.5) is None


def test_a_picture_is_a_clip_of_one_frame_without_speed() -> None:
    picture = Candidate(bytes=encode_png(FRAMES[0]))
    assert read_clip(picture).frames.shape == (1, 24, 32, 3) and read_clip(picture).fps is None
    assert isinstance(read_media(picture, name="x"), Image.Image)
    pages = Candidate(bytes=animated("TIFF"))  # which is no animation
    check_picture(pages, "x")
    assert len(read_clip(pages).frames) == 1


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (saved(FRAMES.astype(np.float32)), r"an array \(F, H, W, 3\) of uint8, got \(7, 24, 32, 3\) float32"),
        (saved(FRAMES[0]), r"got \(24, 32, 3\) uint8"),
        (saved(FRAMES[:0]), "0 frames; a clip has 1 to"),
        (saved(np.array([{}], dtype=object)), "Object arrays cannot be loaded"),
        (saved(FRAMES)[:500], "cannot be read as an array"),
        (saved(FRAMES, fps=-1.0), "fps must be one number above 0"),
        (PACKED[:-30], "cannot be read as an array: File is not a zip file"),
        (zipped(**{"a.txt": b"x"}), "holds a.txt; one array of frames, or pictures, are expected"),
        (zipped(**{"a.png": encode_png(FRAMES[0]), "b.png": b"broken"}), "x, b.png: cannot be decoded"),
        (
            zipped(**{"a.png": encode_png(FRAMES[0]), "b.png": encode_png(FRAMES[0, :8])}),
            "differ in size: 32 x 8, 32 x 24",
        ),
        (b"\0\0\0\x18ftypisom" + bytes(40), "x: cannot be decoded"),
        (b"\x1aE\xdf\xa3" + bytes(100), "x: cannot be decoded"),
        (b"nothing that is known", "x: cannot be decoded: no image of a known format"),
        (animated("GIF")[:-700], "x: cannot be decoded"),
    ],
)
def test_what_is_no_clip_is_one_line(content: bytes, told: str) -> None:
    if content[4:8] == b"ftyp" or content[:2] == b"\x1aE":
        pytest.importorskip("av")
    with pytest.raises(DataError, match=told) as caught:
        read_clip(Candidate(bytes=content), name="x")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_damaged_video_is_never_a_traceback(tmp_path: Path) -> None:
    whole = bytearray(encoded(tmp_path / "clip.mkv").read_bytes())
    draw = np.random.default_rng(0)
    for _ in range(25):
        broken = bytearray(whole)
        for place in draw.integers(4, len(whole), 6):
            broken[place] = int(draw.integers(256))
        try:
            read_clip(Candidate(bytes=bytes(broken)), name="x")
        except DataError as error:
            assert str(error).startswith("x: ") and "\n" not in str(error)


# ---------------------------------------------------------------- where they lie


def test_folders_tables_and_shards_hold_clips(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, content in (("a.npz", saved(FRAMES, fps=12)), ("b.npy", saved(FRAMES)), ("c.webp", b"x")):
        (tmp_path / "folder" / name).write_bytes(content)
        (tmp_path / "folder" / name).with_suffix(".txt").write_text(f"clip {name}")
    records = open_records(tmp_path / "folder")
    assert [record.prompt for record in records] == ["clip a.npz", "clip b.npy", "clip c.webp"]
    kept = usable_records(records, limit=0.5, check=check_clip(ClipCut(7)))
    assert [bad.index for bad in kept.quarantined] == [2]
    with tarfile.open(tmp_path / "shard.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
        for name, content in (
            ("0.chosen.npz", saved(FRAMES, fps=12)),
            ("0.rejected.npy", saved(FRAMES)),
            ("0.txt", b"p"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    (record,) = open_records(tmp_path / "shard.tar")
    assert [read_clip(one).fps for one in record.candidates] == [12.0, None] and record.prompt == "p"


def test_a_column_may_list_the_frames_of_clips_and_tell_their_speed(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, frame in enumerate(FRAMES):
        (frames / f"{number}.png").write_bytes(encode_png(frame))
    np.save(tmp_path / "clip.npy", FRAMES)
    listed = [f"frames/{number}.png" for number in range(7)]
    rows = [
        {"prompt": "p", "chosen": listed, "rejected": "frames", "fps": 24},
        {"prompt": "p", "chosen": "clip.npy", "rejected": listed[::-1], "fps": None},
        {"prompt": "p", "chosen": [listed[0], "missing.png"], "rejected": "frames", "fps": 24},
        {"prompt": "p", "chosen": [], "rejected": "frames", "fps": 0},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = open_records(tmp_path / "pairs.jsonl")
    for candidate in records[0].candidates:
        clip = read_clip(candidate)
        assert np.array_equal(clip.frames, FRAMES) and clip.fps == 24
    assert [read_clip(one).fps for one in records[1].candidates] == [None, None]
    assert np.array_equal(read_clip(records[1].candidates[1]).frames, FRAMES[::-1])
    kept = usable_records(records, limit=0.5)
    assert len(kept) == 2 and "missing.png: cannot be read" in kept.quarantined[0].reason
    assert "column 'chosen': expected image bytes" in kept.quarantined[1].reason
    assert "column 'fps': expected a number > 0, got int 0" in kept.quarantined[1].reason


def test_what_cannot_be_cut_so_is_set_aside_and_counted() -> None:
    def record(name: str, *contents: bytes) -> Record:
        return Record(name, "p", tuple(Candidate(bytes=content) for content in contents))

    picture, short = encode_png(FRAMES[0]), saved(FRAMES[:2], fps=12)
    records = [record("good", PACKED, PACKED), record("picture", PACKED, picture), record("short", short, PACKED)]
    records.append(record("mute", saved(FRAMES), PACKED))
    kept = usable_records(records, limit=0.8, check=check_clip(ClipCut(3, fps=6.0)))
    assert [one.id for one in kept] == ["good"]
    reasons = [bad.reason for bad in kept.quarantined]
    assert reasons[0] == "record 'picture', candidate 1: is a picture; a clip of 3 frames is expected"
    assert reasons[1].startswith("record 'short', candidate 0: has 2 frames, too few for 3, 2 of the clip's apart")
    assert "candidate 0: does not tell its frames a second" in reasons[2]
    kept = usable_records(records, limit=0.8, check=check_clip(ClipCut(3)))
    assert [bad.reason.split(": ", 1)[1][:12] for bad in kept.quarantined] == ["is a picture", "has 2 frames"]
    kept = usable_records([record("p", picture), *records], limit=0.9, check=check_picture)
    assert [one.id for one in kept] == ["p"]
    assert (
        kept.quarantined[0].reason == "record 'good', candidate 0: is an array or a packed clip; a picture is expected"
    )
