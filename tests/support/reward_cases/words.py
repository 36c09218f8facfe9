"""The judge of the words world."""

from diffpref.words import instructions
from reward_cases import RewardCase

ASKED = instructions("seen", 16)

CASE = RewardCase(
    "words",
    media=lambda count: [(ASKED[i].answer if i % 2 == 0 else "none") for i in range(count)],
    prompts=lambda count: [str(ASKED[i]) for i in range(count)],
)
