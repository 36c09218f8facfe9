"""A score from questions of yes and no, each with its weight: the pattern of VisionReward.

Source: Xu et al., VisionReward, arXiv 2412.21059; official code THUDM/VisionReward. There a VQAScore joins the answers:
give it as a further reward of an ensemble.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from diffpref.config import Section, config_error, load_yaml
from diffpref.core.annotations import Number
from diffpref.core.contracts import Media, RewardInfo
from diffpref.core.errors import ConfigError
from diffpref.rewards._asking import Ask, Template
from diffpref.rewards._judging import PointJudge
from diffpref.rewards._media import check_lengths

__all__ = ["Checklist", "ChecklistJudge", "Item"]


class Item(Section):
    """One question of a checklist.

    Args:
        id: its name.
        text: the question; ``{prompt}`` stands for the prompt.
        weight: of the answer, +1 for yes and -1 for no; 0 for a question that only opens others.
        only_if: the question that must be answered yes; where it is not, this one counts 0.
    """

    id: str
    text: str
    weight: Number = 0.0
    only_if: str | None = None


class _File(Section):
    intercept: Number = 0.0
    questions: tuple[Item, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Checklist:
    """Questions whose weighted answers are a score: intercept + sum of weight * answer.

    Args:
        items: the questions.
        intercept: what is added.

    Raises:
        ConfigError: none or twice the same name, or a question that waits for one that is not there or waits itself.
    """

    items: tuple[Item, ...]
    intercept: float = 0.0

    def __post_init__(self) -> None:
        names = self.names
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"checklist: two questions are named '{twice[0]}'")
        opening = {item.id for item in self.items if item.only_if is None}
        for item in self.items:
            if item.only_if is not None and item.only_if not in opening:
                raise ConfigError(
                    f"checklist: question '{item.id}' waits for '{item.only_if}', which is not there or waits itself"
                )

    @classmethod
    def read(cls, path: str) -> Checklist:
        """Return the checklist of a YAML file: ``intercept``, and ``questions`` with the fields of `Item`.

        Raises:
            ConfigError: no such file, or not a checklist; all problems at once.
        """
        try:
            found = _File.model_validate(load_yaml(Path(path).expanduser()))
        except ValidationError as error:
            raise config_error(error, _File, f"checklist {path}") from None
        return cls(found.questions, found.intercept)

    @property
    def names(self) -> tuple[str, ...]:
        """The questions' names."""
        return tuple(item.id for item in self.items)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest score; at least of length 1, for a checklist without weights."""
        reach = sum(abs(item.weight) for item in self.items) or 0.5
        return self.intercept - reach, self.intercept + reach

    @property
    def needs_prompt(self) -> bool:
        """Whether a question mentions the prompt."""
        return any("{prompt}" in item.text for item in self.items)

    @property
    def digest(self) -> str:
        """Eight digits that change with the questions, their weights or the intercept."""
        said = repr([(item.id, item.text, item.weight, item.only_if) for item in self.items]) + repr(self.intercept)
        return hashlib.sha256(said.encode()).hexdigest()[:8]

    def counted(self, said: Mapping[str, float]) -> dict[str, float]:
        """Return what each answer counts: from P(yes) in [0, 1] to -1..1, and 0 for what was not to be asked.

        Args:
            said: question's name -> P(yes): 1, 0 or between; NaN where it could not be read.
        """
        counts = {}
        for item in self.items:
            opened = 1.0 if item.only_if is None else said[item.only_if]
            own = 2.0 * said[item.id] - 1.0
            counts[item.id] = math.nan if math.isnan(opened) else own if opened > 0.5 else 0.0
        return counts

    def total(self, said: Mapping[str, float]) -> float:
        """Return the score; NaN where an answer that matters could not be read.

        >>> face = Item(id="face", text="Is a face to be seen?")
        >>> eyes = Item(id="eyes", text="Do both eyes look right?", weight=0.5, only_if="face")
        >>> Checklist((face, eyes), 0.1).total({"face": 1.0, "eyes": 0.0})
        -0.4
        """
        counts = self.counted(said)
        weighed = [item.weight * counts[item.id] for item in self.items if item.weight]
        return self.intercept + sum(weighed)


class ChecklistJudge(PointJudge):
    """Scores a picture by the answers to every question of a checklist.

    Args:
        info: what it says of itself; its aspects are the questions' names.
        ask: who answers, with P(yes).
        template: in which ``{prompt}`` stands for the question.
        checklist: the questions.
        resize: side of the square to which pictures are scaled.
        log: file that keeps the raw texts.
    """

    def __init__(
        self,
        info: RewardInfo,
        ask: Ask,
        template: Template,
        checklist: Checklist,
        *,
        resize: int | None = None,
        log: str | None = None,
    ) -> None:
        super().__init__(info, ask, template, resize=resize, log=log)
        self.checklist = checklist

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32; NaN where an answer that matters could not be read."""
        said = self._said(media, prompts)
        return torch.tensor([self.checklist.total(one) for one in said], dtype=torch.float32)

    def score_aspects(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        """Return (N,) float32 for each question: 1 yes, -1 no, 0 where it was not to be asked, NaN unreadable."""
        counted = [self.checklist.counted(one) for one in self._said(media, prompts)]
        return {
            name: torch.tensor([counts[name] for counts in counted], dtype=torch.float32)
            for name in self.checklist.names
        }

    def _said(self, media: Sequence[Media], prompts: Sequence[str]) -> list[dict[str, float]]:
        check_lengths(self.info.name, media, prompts)
        names = self.checklist.names
        questions = [
            self.template.ask(item.text.replace("{prompt}", prompt), picture)
            for picture, prompt in zip(self._pictures(media), prompts, strict=True)
            for item in self.checklist.items
        ]
        values = [told[0] for told in self._answers(questions)]
        return [
            dict(zip(names, values[start : start + len(names)], strict=True))
            for start in range(0, len(values), len(names))
        ]
