"""The reward ``ocr``, with an engine that reads a word off a picture's first pixel."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from reward_cases import RewardCase

WORDS = ("OPEN", "CLOSED", "SALE today", "Hello World", "exit", "x")


def read(picture: Image.Image) -> list[tuple[str, float]]:
    pixel = picture.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return [(WORDS[pixel[0] % len(WORDS)], 0.9), ("unseen", 0.0)]


def written(count: int) -> Sequence[np.ndarray]:
    return [np.full((32, 32, 3), i % len(WORDS), np.uint8) for i in range(count)]


CASE = RewardCase(
    "ocr",
    options={"engine": read},
    media=written,
    prompts=lambda count: [f'a sign "{WORDS[(2 * i) % len(WORDS)]}"' for i in range(count)],
)
