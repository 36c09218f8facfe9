"""The reward ``pair_reward``."""

from tiny_pairrm import save_pairrm
from tiny_texts import answers

from reward_cases import RewardCase

CASE = RewardCase(
    "pair_reward",
    build=lambda folder: str(save_pairrm(folder)),
    media=answers,
    metadata=lambda count: [{"reference": f"a white ring {i % 10}"} for i in range(count)],
)
