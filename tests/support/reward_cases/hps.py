"""The reward ``hps``."""

from tiny_encoders import save_open_clip

from reward_cases import RewardCase

CASE = RewardCase("hps", build=lambda folder: str(save_open_clip(folder)))
