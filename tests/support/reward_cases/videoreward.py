"""The reward ``videoreward``."""

from tiny_reward_heads import save_videoreward

from diffpref.core.media import Clip
from reward_cases import RewardCase, clips

CASE = RewardCase(
    "videoreward",
    build=lambda folder: str(save_videoreward(folder)),
    options={"allow_pickle": True},
    media=lambda count: [Clip(frames, 8.0) for frames in clips(count, size=(24, 40))],
)
