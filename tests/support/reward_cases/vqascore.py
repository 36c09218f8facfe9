"""The reward ``vqascore`` over CLIP-FlanT5."""

from tiny_clip_t5 import save_clip_t5

from reward_cases import RewardCase

CASE = RewardCase("vqascore", build=lambda folder: str(save_clip_t5(folder)))
