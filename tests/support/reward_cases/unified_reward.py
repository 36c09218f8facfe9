"""The reward ``unified_reward``: a LLaVA that says final scores only."""

import re

from tiny_vlms import numbers, save_llava

from diffpref.rewards.unified_reward import default_template
from reward_cases import RewardCase

PHRASES = [phrase for phrase in re.split(r"\{\w+\}", default_template("points").text) if phrase.strip()]
ANSWERS = numbers(form="Final Score: {:.2f}\n")

CASE = RewardCase(
    "unified_reward",
    build=lambda folder: str(save_llava(folder, answers=ANSWERS, phrases=PHRASES, std=0.3)),
    options={"max_new_tokens": 3},
)
