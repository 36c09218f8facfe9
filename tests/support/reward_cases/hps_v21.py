"""The reward ``hps_v21``: a checkpoint as it is published, of a tiny architecture."""

from tiny_encoders import save_open_clip_checkpoint

from reward_cases import RewardCase

CASE = RewardCase(
    "hps_v21",
    build=lambda folder: str(save_open_clip_checkpoint(folder, "HPS_v2.1_compressed.pt")),
    options={"architecture": "tiny-hps", "allow_pickle": True},
)
