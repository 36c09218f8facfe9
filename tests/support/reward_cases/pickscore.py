"""The reward ``pickscore``."""

from tiny_encoders import save_clip

from reward_cases import RewardCase

CASE = RewardCase("pickscore", build=lambda folder: str(save_clip(folder)))
