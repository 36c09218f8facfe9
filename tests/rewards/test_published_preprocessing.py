"""Pictures are framed as each model's authors do it, on a picture that is not square; the order of steps shows.

Measured on normalised pixels against "resize with Pillow, cut, to a tensor, normalise": transformers' processor is at
most 0.015 off, a tensor resized with antialiasing 0.004 on average, without it 0.24.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from reward_cases import cases
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from diffpref import rewards
from diffpref.core.contracts import Reward
from diffpref.rewards._dual_encoder import Framing

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NAMES = ["aesthetic_v2", "aesthetic_v25", "clip", "hps_v2", "hps_v21", "pickscore"]


def detailed(height: int = 700, width: int = 1100) -> np.ndarray:
    """A picture with smooth parts, edges, and detail that a smaller one cannot hold."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 3.1), np.sin((x + 2 * y) / 2.3), np.sign(np.sin(y / 5.7))], axis=-1)
    slope = np.stack([x / width, y / height, (x + y) / (width + height)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 20, (height, width, 3))
    return (127 + 60 * waves + 60 * (slope - 0.5) + noise).clip(0, 255).astype(np.uint8)


def published(size: int, mean: tuple[float, ...], std: tuple[float, ...], *, squash: bool) -> Compose:
    sides = (size, size) if squash else size
    resize = Resize(sides, interpolation=InterpolationMode.BICUBIC)
    return Compose([resize, CenterCrop(size), ToTensor(), Normalize(mean, std)])


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reward]:
    found: dict[str, Reward] = {}

    def load_once(name: str) -> Reward:
        if name not in found:
            case = cases()[name]
            found[name] = rewards.load(name, case.build(tmp_path_factory.mktemp(name)), **case.options)
        return found[name]

    return load_once


def difference(found: Tensor, expected: Tensor) -> tuple[float, float]:
    gap = (found - expected).abs()
    return float(gap.mean()), float(gap.max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(700, 1100), (500, 300)])
def test_pictures_are_framed_as_published(load, name, shape):
    encoder = load(name).encoder
    mean, std = HALF if name == "aesthetic_v25" else CLIP
    picture = Image.fromarray(detailed(*shape))
    expected = published(encoder.framing.size, mean, std, squash=name == "aesthetic_v25")(picture)[None]
    found = encoder.preprocess([picture])
    assert found.shape == expected.shape == (1, 3, encoder.framing.size, encoder.framing.size)
    average, largest = difference(found, expected)
    assert average < 2e-4 and largest < 0.016
    assert encoder.framing.mean == pytest.approx(mean) and encoder.framing.std == pytest.approx(std)
    assert load(name).info.preprocessing == f"rgb+bicubic{encoder.framing.size}+" + (
        "squash" if name == "aesthetic_v25" else "centre"
    )


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_framed_nearly_so(load, name):
    encoder = load(name).encoder
    picture = Image.fromarray(detailed())
    found = encoder.framing(ToTensor()(picture)[None])
    average, largest = difference(found, encoder.preprocess([picture]))
    assert average < 0.006 and largest < 0.02


def test_without_antialiasing_it_is_another_picture():
    picture = detailed()
    pixels = ToTensor()(Image.fromarray(picture))[None]
    expected = published(224, *CLIP, squash=False)(Image.fromarray(picture))[None]
    framing = Framing(224, *CLIP)
    average, largest = difference(framing(pixels), expected)
    assert average < 0.006 and largest < 0.02
    size = (224, int(224 * 1100 / 700))
    rough = functional.interpolate(pixels, size, mode="bicubic", antialias=False).clamp(0, 1)
    left = (size[1] - 224) // 2
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in CLIP)
    average, largest = difference((rough[..., left : left + 224] - mean) / std, expected)
    assert average > 0.1 and largest > 1


@pytest.mark.parametrize("name", NAMES)
def test_alpha_palettes_and_grey_are_made_rgb_first(load, name):
    reward = load(name)
    picture = Image.fromarray(detailed(90, 140))
    palette = picture.convert("P")
    for other, rgb in (
        (picture.convert("RGBA"), picture),
        (palette, palette.convert("RGB")),
        (picture.convert("L"),) * 2,
    ):
        found, expected = reward.score([other], ["a"]), reward.score([rgb.convert("RGB")], ["a"])
        assert torch.equal(found, expected)
