"""The reward ``ensemble``."""

from pathlib import Path

import yaml
from tiny_encoders import save_clip

from reward_cases import RewardCase


def build(folder: Path) -> str:
    for name in ("clip", "pickscore"):
        (folder / name).mkdir()
    members = [
        {"pickscore": {"path": str(save_clip(folder / "pickscore")), "mean": 0.0, "std": 10.0}},
        {"clip": {"path": str(save_clip(folder / "clip")), "weight": 0.5}},
    ]
    (folder / "members.yaml").write_text(yaml.safe_dump({"members": members}))
    return str(folder / "members.yaml")


CASE = RewardCase("ensemble", build=build)
