"""The reward ``mps``."""

from tiny_mps import save_mps

from reward_cases import RewardCase

CASE = RewardCase("mps", build=lambda folder: str(save_mps(folder)))
