"""The oracle of the shapes world."""

import numpy as np

from diffpref.shapes.grammar import captions
from diffpref.shapes.render import render
from reward_cases import RewardCase

CAPTIONS = captions("seen")

CASE = RewardCase(
    "oracle",
    media=lambda count: [render(CAPTIONS[37 * i], np.random.default_rng(i)) for i in range(count)],
    prompts=lambda count: [str(CAPTIONS[37 * (i // 2)]) for i in range(count)],
)
