"""Decoding, converting and framing images."""

from __future__ import annotations

import io
import resource
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from diffpref.core.contracts import Candidate, Record
from diffpref.core.errors import DataError
from diffpref.data import decode_image, encode_png, image_tensor, to_uint8, usable_records

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (12, 10, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_png_survives_the_round_trip_bit_for_bit(tmp_path):
    data = encode_png(PIXELS)
    (tmp_path / "a.png").write_bytes(data)
    assert np.array_equal(np.asarray(decode_image(data)), PIXELS)
    assert np.array_equal(np.asarray(decode_image(tmp_path / "a.png")), PIXELS)
    assert encode_png(PIXELS) == data


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_row_21_a_file_cut_anywhere_is_refused_with_its_name(kind, tmp_path):
    data = encoded(Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    path = tmp_path / "cut"
    for sixteenth in range(16):
        path.write_bytes(data[: len(data) * sixteenth // 16])
        with pytest.raises(DataError, match=r"cut: cannot be decoded"):
            decode_image(path)


@pytest.mark.parametrize("data", [b"", b"garbage" * 100, b"<svg></svg>", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_row_21_garbage_is_refused(data):
    with pytest.raises(DataError, match=r"row 3: cannot be decoded"):
        decode_image(data, name="row 3")


def test_row_21_broken_images_are_set_aside_and_counted(tmp_path):
    whole = encoded(Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "PNG")
    rejected = Candidate(bytes=encode_png(PIXELS))
    contents = [whole if k % 2 else whole[: len(whole) * k // 32] for k in range(32)]
    contents[0] = b"garbage"
    records = [Record(f"r{k}", "p", (Candidate(bytes=data), rejected)) for k, data in enumerate(contents)]
    kept = usable_records(records, limit=0.5, quarantine=tmp_path / "quarantine.jsonl")
    assert [record.id for record in kept] == [f"r{k}" for k in range(1, 32, 2)]
    assert [bad.id for bad in kept.quarantined] == [f"r{k}" for k in range(0, 32, 2)]
    assert all(f"record '{bad.id}', candidate 0: cannot be decoded" in bad.reason for bad in kept.quarantined)
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 16


def test_a_flipped_byte_never_escapes_as_another_error():
    data = encode_png(RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for position in range(0, len(data), 3):
        broken = bytearray(data)
        broken[position] ^= 0x55
        try:
            decode_image(bytes(broken))
        except DataError:
            pass


def _bomb(width: int, height: int, pixels: bytes = zlib.compress(bytes(100))) -> bytes:
    """A PNG header that promises more pixels than anyone wants."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(9000, 9000), (40_000, 40_000), (1, 100_000)])
def test_row_22_a_bomb_is_refused_before_it_is_decoded(size):
    with pytest.raises(DataError, match=r"million allowed|decompression bomb|exceeds limit"):
        decode_image(_bomb(*size))


def test_row_22_refusing_a_bomb_costs_no_memory():
    """A whole picture of 9,400 x 9,400 pixels in a few hundred kB; as RGB it would take 265 MB."""
    data = _bomb(9400, 9400, zlib.compress(bytes(9400 * (3 * 9400 + 1)), 9))
    assert len(data) < 400_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="million allowed"):
        decode_image(data)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 50e6


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.png: cannot be read \(No such file"):
        decode_image(tmp_path / "nowhere.png")


def test_row_23_alpha_is_laid_over_white():
    picture = np.zeros((2, 2, 4), dtype=np.uint8)
    picture[0, 0] = (10, 20, 30, 255)
    for image in (Image.fromarray(picture), Image.fromarray(picture).convert("LA")):
        decoded = np.asarray(decode_image(encoded(image, "PNG")))
        assert (decoded[1, 1] == 255).all() and (decoded[0, 0] < 50).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGBA", "LA"])
def test_row_23_every_mode_becomes_rgb(mode):
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    image = decode_image(encoded(Image.fromarray(PIXELS).convert(mode), kind))
    assert image.mode == "RGB" and image.size == (10, 12)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 255), (77, 77, 77)),
        ("LA", (0, 51), (204, 204, 204)),  # a fifth of black over white
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("RGBA", (9, 9, 9, 0), (255, 255, 255)),
    ],
)
def test_row_23_modes_have_golden_pixels(mode, value, expected):
    image = decode_image(encoded(Image.new(mode, (3, 2), value), "PNG"))
    assert image.getcolors() == [(6, expected)]


def test_row_23_inks_palettes_and_colour_profiles():
    cmyk = np.asarray(decode_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)))
    assert np.abs(cmyk.astype(int) - (255, 0, 0)).max() <= 3
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    assert np.asarray(decode_image(encoded(palette, "PNG"))).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain = decode_image(encoded(Image.fromarray(PIXELS), "PNG", icc_profile=profile))
    assert np.array_equal(np.asarray(plain), PIXELS)  # profiles are ignored, whatever they say


def test_row_23_sixteen_bit_grey_keeps_its_range():
    values = np.array([[0, 65535], [257 * 100, 32768]], dtype=np.uint16)
    decoded = np.asarray(decode_image(encoded(Image.fromarray(values), "PNG")))
    assert decoded[..., 0].tolist() == [[0, 255], [100, 127]]


def test_row_23_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    decoded = decode_image(encoded(Image.fromarray(PIXELS), "PNG", exif=exif))
    assert np.array_equal(np.asarray(decoded), np.rot90(PIXELS, k=-1))


def test_row_23_the_first_frame_of_an_animation_is_read():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    decoded = decode_image(encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    assert np.asarray(decoded)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    "media",
    [
        Image.fromarray(PIXELS),
        PIXELS,
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255,
        torch.from_numpy(PIXELS).permute(2, 0, 1).double() / 255,
    ],
    ids=["pil", "array", "hwc", "chw", "float", "double"],
)
def test_every_kind_of_media_gives_the_same_pixels(media):
    assert np.array_equal(to_uint8(media), PIXELS)


def test_floats_are_rounded_not_cut():
    assert to_uint8(torch.full((3, 1, 1), 0.999)).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize(
    "media",
    [
        torch.full((3, 4, 4), -0.5),
        torch.full((3, 4, 4), 2.0),
        torch.full((3, 4, 4), torch.nan),
        torch.zeros(4, 4),
        torch.zeros(1, 3, 4, 4),
        torch.zeros(3, 4, 4, dtype=torch.int64),
        torch.zeros(3, 4, 3, dtype=torch.uint8),
        PIXELS.astype(np.float32),
        PIXELS[..., 0],
        "a.png",
        None,
    ],
    ids=str,
)
def test_what_is_ambiguous_is_refused(media):
    with pytest.raises(DataError):
        to_uint8(media)


def test_an_image_of_the_right_size_is_framed_without_a_change():
    pixels = RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    framed = image_tensor(pixels, 16)
    assert torch.equal(((framed.pixels + 1) * 127.5).round().byte(), torch.from_numpy(pixels).permute(2, 0, 1))
    assert framed.original_size == (16, 16) and framed.crop_offset == (0, 0)


def test_a_wide_image_is_resized_and_cut_in_the_middle():
    ramp = np.broadcast_to(np.linspace(0, 255, 80, dtype=np.uint8)[None, :, None], (20, 80, 3)).copy()
    framed = image_tensor(ramp, 10)
    assert framed.pixels.shape == (3, 10, 10) and framed.pixels.abs().max() <= 1
    assert framed.original_size == (20, 80) and framed.crop_offset == (0, 15)
    assert abs(float(framed.pixels.mean())) < 0.02


def test_the_framing_is_torchvisions():
    from torchvision import transforms

    picture = Image.fromarray(RANDOM.integers(0, 256, (37, 53, 3), dtype=np.uint8))
    theirs = transforms.Compose(
        [transforms.Resize(24), transforms.CenterCrop(24), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
    )(picture)
    assert torch.allclose(image_tensor(picture, 24).pixels, theirs, atol=1e-6)


def test_a_thread_of_an_image_is_refused():
    with pytest.raises(DataError, match="16 times"):
        image_tensor(np.zeros((1, 400, 3), dtype=np.uint8), 8)
