"""The reward ``clap``."""

from collections.abc import Sequence

import numpy as np
from tiny_clap import RATE, save_clap

from diffpref.core.contracts import Sound
from reward_cases import RewardCase


def sounds(count: int) -> Sequence[Sound]:
    """Tones with noise: short ones, ones that are cut, and ones of another rate."""
    found = []
    for i in range(count):
        random, rate = np.random.default_rng(i), (RATE, 2 * RATE, 6_000)[i % 3]
        times = np.arange(rate * (i % 4 + 1) // 2) / rate
        noise = 0.2 * random.standard_normal(len(times)).clip(-2, 2)
        found.append(Sound((0.4 * np.sin(2 * np.pi * 150 * (i + 1) * times) + noise).astype(np.float32), rate))
    return found


CASE = RewardCase("clap", build=lambda folder: str(save_clap(folder)), media=sounds)
