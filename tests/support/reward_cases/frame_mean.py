"""The reward ``frame_mean``, over the bundled PickScore of the shapes world."""

from diffpref.shapes.grammar import captions
from reward_cases import RewardCase, clips

CAPTIONS = captions("seen")

CASE = RewardCase(
    "frame_mean",
    options={"reward": {"pickscore": {"path": "bundled:shapes-pickscore"}}, "frames": 3},
    media=lambda count: clips(count, size=(64, 64), frames=5),
    prompts=lambda count: [str(CAPTIONS[37 * i]) for i in range(count)],
)
