"""Reward-augmented relabelling (arXiv:2410.08067): a pair becomes two, each under the goal of one answer's score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from diffpref.core.contracts import Record
from diffpref.core.errors import ConfigError

__all__ = ["GOAL", "augmented", "goal_of", "with_goal"]

GOAL = "Give an answer that deserves an overall score of {goal} out of 10.\n"


def goal_of(score: float, lowest: float, highest: float) -> float:
    """Return a score as a goal: from 1 for ``lowest`` to 10 for ``highest``, to one decimal, never beyond.

    Raises:
        ConfigError: highest is not above lowest.
    """
    if not highest > lowest:
        raise ConfigError(f"highest: must be above lowest, {lowest:g}, got {highest:g}")
    share = (score - lowest) / (highest - lowest)
    return round(1.0 + 9.0 * min(1.0, max(0.0, share)), 1)


def with_goal(prompt: str, goal: float, template: str = GOAL) -> str:
    """Return a prompt with its goal before it; whole numbers are written without decimals.

    >>> with_goal("sort : b a =", 10.0, "goal {goal} ")
    'goal 10 sort : b a ='
    """
    return template.replace("{goal}", f"{goal:g}") + prompt


def augmented(record: Record, goals: tuple[float, float], template: str = GOAL) -> Iterable[Record]:
    """Yield the record under the winner's goal as it is, and under the loser's goal with the judgement turned round.

    Args:
        record: with one judgement.
        goals: of the winner and of the loser. Equal ones would contradict each other; the first record is then all.
        template: what is put before the prompt.
    """
    (judgement,) = record.judgements
    if judgement.probability < 0.5:
        judgement = replace(
            judgement, first=judgement.second, second=judgement.first, probability=1.0 - judgement.probability
        )
    turned = replace(judgement, first=judgement.second, second=judgement.first)
    for number, (goal, kept) in enumerate(zip(goals, (judgement, turned), strict=True)):
        if number == 0 or goals[0] != goals[1]:
            yield replace(
                record,
                id=f"{record.id}-goal{number}",
                prompt=with_goal(record.prompt, goal, template),
                judgements=(kept,),
                meta={**record.meta, "goal": f"{goal:g}"},
            )
