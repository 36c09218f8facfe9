"""The reward ``vlm_judge``: a LLaVA that says scores only."""

import re

from tiny_vlms import numbers, save_llava

from diffpref.rewards.vlm_judge import default_template
from reward_cases import RewardCase

PHRASES = [phrase for phrase in re.split(r"\{\w+\}", default_template("points").text) if phrase.strip()]

CASE = RewardCase(
    "vlm_judge",
    build=lambda folder: str(save_llava(folder, answers=numbers(), phrases=PHRASES, std=0.3)),
    options={"max_new_tokens": 3},
)
