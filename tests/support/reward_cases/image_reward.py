"""The reward ``image_reward``."""

from tiny_blip import save_blip

from reward_cases import RewardCase

CASE = RewardCase("image_reward", build=lambda folder: str(save_blip(folder)))
