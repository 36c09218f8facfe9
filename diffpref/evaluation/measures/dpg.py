"""DPG-Bench's score: a question counts only where the questions that it depends on hold.

Quirks of the official code, from ``dpg_bench/compute_dpg_bench.py``: (1) scores are masked in place in the order of
the questions, so that a zero passes on to later questions; `masked_answers` does the same, because a question should
not count where its grandparent fails; an earlier question that depends on a later one sees it unmasked. (2) Categories
are averages of *unmasked* answers of the *last* crop only: `dpg_categories` with ``legacy=True``; by default it masks
and takes all crops. (3) The first row of the table is skipped: `read_dpg_bench(files, legacy=True)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffpref.core.errors import DataError

__all__ = ["DpgAnswers", "dpg_categories", "dpg_overall", "dpg_score", "masked_answers"]


@dataclass(frozen=True)
class DpgAnswers:
    """One prompt's pictures, each with an answer to every question.

    Args:
        crops: one a picture (the official grid has four): question -> 1 for yes, 0 for no.
        depends_on: question -> questions that must hold too; 0 stands for none.
        categories: question -> category, such as ``"entity - whole"``.
    """

    crops: Sequence[Mapping[int, float]]
    depends_on: Mapping[int, Sequence[int]]
    categories: Mapping[int, str] | None = None


def masked_answers(answers: Mapping[int, float], depends_on: Mapping[int, Sequence[int]]) -> dict[int, float]:
    """Return the answers with 0 for each question one of whose parents is answered 0, in the order of the questions.

    Raises:
        DataError: a question, or one that it depends on, has no answer.
    """
    masked = dict(answers)
    for question, parents in depends_on.items():
        wanted = [question, *(parent for parent in parents if parent)]
        if missing := [number for number in wanted if number not in masked]:
            raise DataError(f"no answer to question {missing[0]}, which question {question} needs")
        if any(masked[parent] == 0 for parent in wanted[1:]):
            masked[question] = 0.0
    return masked


def dpg_score(answers: DpgAnswers) -> float:
    """Return the score of one prompt, 0..1: the mean over crops of the mean over masked answers.

    Raises:
        DataError: no crops or no questions, or a question without an answer.
    """
    if not answers.crops or not all(answers.crops):
        raise DataError("a DPG score needs at least one picture and one question")
    crops = [masked_answers(crop, answers.depends_on) for crop in answers.crops]
    return sum(sum(crop.values()) / len(crop) for crop in crops) / len(crops)


def dpg_overall(prompts: Sequence[DpgAnswers]) -> float:
    """Return the benchmark's number, 0..100: the mean over prompts.

    Raises:
        DataError: no prompts.
    """
    if not prompts:
        raise DataError("no prompts to average")
    return 100 * sum(map(dpg_score, prompts)) / len(prompts)


def dpg_categories(prompts: Sequence[DpgAnswers], *, legacy: bool = False) -> dict[str, float]:
    """Return category -> mean answer, 0..100, over all questions of that category.

    Args:
        prompts: with ``categories``.
        legacy: as the official code: answers unmasked, of the last crop only.

    Raises:
        DataError: prompts without categories.
    """
    values: dict[str, list[float]] = {}
    for prompt in prompts:
        if prompt.categories is None:
            raise DataError("a breakdown needs the categories of the questions")
        crops = prompt.crops[-1:] if legacy else [masked_answers(crop, prompt.depends_on) for crop in prompt.crops]
        for crop in crops:
            for question, answer in crop.items():
                values.setdefault(prompt.categories[question], []).append(answer)
    return {category: 100 * sum(found) / len(found) for category, found in values.items()}
