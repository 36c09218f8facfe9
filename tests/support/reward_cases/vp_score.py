"""The reward ``vp_score``."""

from tiny_blip import save_blip

from reward_cases import RewardCase

CASE = RewardCase("vp_score", build=lambda folder: str(save_blip(folder, "VPScore.safetensors")))
