"""The reward ``aesthetic_v25``."""

from tiny_aesthetic import save_aesthetic

from reward_cases import RewardCase

CASE = RewardCase(
    "aesthetic_v25",
    build=lambda folder: str(save_aesthetic(folder, "aesthetic_v25")),
    options={"allow_pickle": True},
    prompt_matters=False,
)
