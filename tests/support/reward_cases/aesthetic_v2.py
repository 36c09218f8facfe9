"""The reward ``aesthetic_v2``."""

from tiny_aesthetic import save_aesthetic

from reward_cases import RewardCase

CASE = RewardCase(
    "aesthetic_v2",
    build=lambda folder: str(save_aesthetic(folder, "aesthetic_v2")),
    options={"allow_pickle": True},
    prompt_matters=False,
)
