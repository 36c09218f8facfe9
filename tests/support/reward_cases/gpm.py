"""The reward ``gpm``."""

from tiny_gpm import save_gpm
from tiny_texts import answers

from reward_cases import RewardCase

CASE = RewardCase(
    "gpm",
    build=lambda folder: str(save_gpm(folder)),
    media=answers,
    metadata=lambda count: [{"reference": f"a white ring {i % 10}"} for i in range(count)],
)
