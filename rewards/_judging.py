"""Judges of pictures that are asked in words: of one picture, of aspects of one, of two in both orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffpref.core.contracts import Media, RewardInfo
from diffpref.rewards._asking import Ask, Template, Transcript
from diffpref.rewards._frames import thinned
from diffpref.rewards._media import as_clips, as_pictures, check_lengths
from diffpref.rewards._verdicts import agreed
from diffpref.rewards._vlm import Question

__all__ = ["AspectJudge", "ClipJudge", "PairJudge", "PointJudge"]


class _Judge:
    def __init__(
        self, info: RewardInfo, ask: Ask, template: Template, *, resize: int | None = None, log: str | None = None
    ) -> None:
        self._info, self._ask, self.template, self.resize = info, ask, template, resize
        self.transcript = Transcript(info, Path(log).expanduser() if log else None)

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    def _pictures(self, media: Sequence[Media]) -> list[Image.Image]:
        return [self._sized(picture) for picture in as_pictures(self._info.name, media)]

    def _sized(self, picture: Image.Image) -> Image.Image:
        if self.resize is None:
            return picture
        return picture.resize((self.resize, self.resize), Image.Resampling.BICUBIC)

    def _answers(self, questions: Sequence[Question]) -> list[tuple[float, ...]]:
        answers = self._ask(questions)
        self.transcript.note(questions, answers)
        return [told.values for told in answers]


class PointJudge(_Judge):
    """Scores one picture at a time.

    Args:
        info: what it says of itself.
        ask: who answers.
        template: of the question.
        resize: side of the square to which pictures are scaled; None: as they are.
        log: file that keeps the raw texts.
    """

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 for N pictures and N prompts; NaN where an answer could not be read.

        Raises:
            ShapeError: not as many prompts as pictures.
            DataError: an item is no picture.
        """
        return self._table(media, prompts).mean(dim=1)

    def _table(self, media: Sequence[Media], prompts: Sequence[str]) -> Tensor:
        check_lengths(self._info.name, media, prompts)
        pictures = self._pictures(media)
        questions = [self.template.ask(prompt, picture) for prompt, picture in zip(prompts, pictures, strict=True)]
        width = max(1, len(self._info.aspects))
        return torch.tensor(self._answers(questions), dtype=torch.float32).reshape(-1, width)


class AspectJudge(PointJudge):
    """Scores each of ``info.aspects`` with one question; ``score`` is their mean."""

    def score_aspects(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        """Return (N,) float32 for each aspect; NaN where it could not be read."""
        return dict(zip(self._info.aspects, self._table(media, prompts).unbind(dim=1), strict=True))


class PairJudge(_Judge):
    """Says which of two pictures is the better one; it scores no picture by itself.

    Args:
        info: what it says of itself.
        ask: who answers, with P(the one shown first is better).
        template: of the question about two pictures.
        both_orders: ask twice, with either one first. Two verdicts that contradict each other are a tie; of two
            probabilities the mean is taken.
        probabilities: whether answers are probabilities in place of verdicts.
        resize: side of the square to which pictures are scaled; None: as they are.
        log: file that keeps the raw texts.
    """

    def __init__(
        self,
        info: RewardInfo,
        ask: Ask,
        template: Template,
        *,
        both_orders: bool = True,
        probabilities: bool = False,
        resize: int | None = None,
        log: str | None = None,
    ) -> None:
        super().__init__(info, ask, template, resize=resize, log=log)
        self.both_orders, self.probabilities = both_orders, probabilities

    def compare(self, first: Sequence[Media], second: Sequence[Media], prompts: Sequence[str]) -> Tensor:
        """Return (N,) float32 P(first is better than second); NaN where an answer could not be read.

        Raises:
            ShapeError: not as many prompts as pairs.
            DataError: an item is of another kind.
        """
        check_lengths(self._info.name, first, prompts)
        check_lengths(self._info.name, second, prompts)
        rows = list(zip(prompts, self._shown(first), self._shown(second), strict=True))
        questions = [self.template.ask(prompt, one, other) for prompt, one, other in rows]
        if self.both_orders:
            questions += [self.template.ask(prompt, other, one) for prompt, one, other in rows]
        said = [values[0] for values in self._answers(questions)]
        if self.both_orders:
            said = [self._settled(*both) for both in zip(said[: len(rows)], said[len(rows) :], strict=True)]
        return torch.tensor(said, dtype=torch.float32)

    def _shown(self, media: Sequence[Media]) -> Sequence[Sequence[Image.Image]]:
        """Return what each item puts into its place of the question."""
        return [[picture] for picture in self._pictures(media)]

    def _settled(self, forward: float, backward: float) -> float:
        """Return P(first is better) by the answers in either order, each P(the one shown first is better)."""
        return _mean(forward, backward) if self.probabilities else agreed(forward, backward)


class ClipJudge(PairJudge):
    """Says which of two clips is the better one, by the frames of the first and then those of the second.

    Probabilities that contradict each other are a tie as verdicts are: of two clips that move alike the place in the
    question would else decide.

    Args:
        info: what it says of itself.
        ask: who answers, with P(the one shown first is better).
        template: of the question about two clips.
        rate: frames a second that are shown; of a clip that tells no speed all are.
        options: as of `PairJudge`.
    """

    def __init__(self, info: RewardInfo, ask: Ask, template: Template, *, rate: float = 8.0, **options: Any) -> None:
        super().__init__(info, ask, template, **options)
        self.rate = rate

    def _shown(self, media: Sequence[Media]) -> Sequence[Sequence[Image.Image]]:
        clips = as_clips(self._info.name, media)
        return [
            [self._sized(Image.fromarray(clip.frames[k])) for k in thinned(len(clip.frames), clip.fps, self.rate)]
            for clip in clips
        ]

    def _settled(self, forward: float, backward: float) -> float:
        against = self.probabilities and (forward - 0.5) * (0.5 - backward) <= 0  # NaN stays NaN
        return 0.5 if against else super()._settled(forward, backward)


def _mean(forward: float, backward: float) -> float:
    return 0.5 * (forward + 1.0 - backward)
