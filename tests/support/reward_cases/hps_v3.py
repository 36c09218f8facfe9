"""The reward ``hps_v3``."""

from tiny_reward_heads import save_hps_v3

from reward_cases import RewardCase, pictures

CASE = RewardCase("hps_v3", build=lambda folder: str(save_hps_v3(folder)), media=lambda n: pictures(n, (40, 56)))
