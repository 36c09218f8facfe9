"""The reward ``clip``."""

from tiny_encoders import save_clip

from reward_cases import RewardCase

CASE = RewardCase("clip", build=lambda folder: str(save_clip(folder)))
