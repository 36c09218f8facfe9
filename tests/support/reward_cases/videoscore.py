"""The reward ``videoscore``."""

from tiny_reward_heads import save_videoscore

from reward_cases import RewardCase, clips

CASE = RewardCase(
    "videoscore", build=lambda folder: str(save_videoscore(folder)), media=lambda count: clips(count, size=(24, 40))
)
