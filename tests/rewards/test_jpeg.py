"""Sizes as JPEG: more detail is larger, on each of the published scales."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from diffpref import rewards
from diffpref.core.errors import ConfigError

PLAIN = np.zeros((64, 64, 3), np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
RAMP = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[:, None, None], (64, 64, 3))


def test_detail_costs_bytes():
    size = rewards.load("jpeg", output="incompressibility").score([PLAIN, RAMP, NOISE], [""] * 3)
    assert size[0] < size[1] < size[2]
    assert 0.5 < size[0] < 0.9 and 4 < size[2] < 7  # 0.691 and 5.446 with Pillow 13


def test_the_published_scales():
    stream = BytesIO()
    Image.fromarray(NOISE).save(stream, format="JPEG", quality=95)
    size = len(stream.getvalue()) / 1000
    for output, expected in (
        ("incompressibility", size),
        ("compressibility", -size),
        ("compressibility_500", -size / 500),
    ):
        reward = rewards.load("jpeg", output=output)
        assert reward.score([NOISE], ["a"]).item() == pytest.approx(expected, rel=1e-6)
        assert reward.info.range[0] <= expected <= reward.info.range[1]
    versions = {rewards.load("jpeg", output=o).info.version for o in ("incompressibility", "compressibility")}
    assert len(versions) == 2 and all("libjpeg" in version for version in versions)


def test_every_kind_of_picture_has_the_size_of_its_rgb():
    picture = Image.fromarray(NOISE)
    tensor = torch.from_numpy(NOISE).permute(2, 0, 1) / 255
    found = rewards.load("jpeg").score([NOISE, picture, picture.convert("RGBA"), tensor], [""] * 4)
    assert len(set(found.tolist())) == 1


def test_it_takes_no_path():
    with pytest.raises(ConfigError, match="takes no path"):
        rewards.load("jpeg", "folder")
