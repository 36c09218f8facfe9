"""The reward ``motion``."""

from reward_cases import RewardCase, clips

CASE = RewardCase("motion", media=clips, prompt_matters=False)
