"""The reward ``program``."""

from tiny_texts import answers

from reward_cases import RewardCase

CASE = RewardCase(
    "program",
    options={"program": "exact_match"},
    media=answers,
    metadata=lambda count: [{"answer": text if i % 2 == 0 else "none"} for i, text in enumerate(answers(count))],
)
