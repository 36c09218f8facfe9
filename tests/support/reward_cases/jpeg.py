"""The reward ``jpeg``."""

from reward_cases import RewardCase

CASE = RewardCase("jpeg", prompt_matters=False)
