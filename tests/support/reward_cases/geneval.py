"""The reward ``geneval``, by its graded rule, on the shapes world."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffpref.evaluation.prompt_sets import load_prompt_set
from diffpref.shapes.grammar import Caption
from diffpref.shapes.render import render
from reward_cases import RewardCase

ASKED = load_prompt_set("shapes_geneval:40")


def metadata(count: int) -> Sequence[Mapping[str, Any]]:
    assert ASKED.metadata is not None
    return ASKED.metadata[:count]


CASE = RewardCase(
    "geneval",
    options={"detector": "shapes", "rule": "soft"},
    media=lambda n: [render(Caption.parse(ASKED.prompts[3 * i]), np.random.default_rng(i)) for i in range(n)],
    prompts=lambda n: ASKED.prompts[:n],
    metadata=metadata,
)
