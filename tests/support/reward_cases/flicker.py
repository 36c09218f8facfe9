"""The reward ``flicker``."""

from reward_cases import RewardCase, clips

CASE = RewardCase("flicker", media=clips, prompt_matters=False)
