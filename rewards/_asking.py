"""Questions to a judge in words, and what comes back: templates, answers with their meaning, a transcript.

Who answers is a function, so that a model of transformers, a server or a test can be asked in the same way.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image

from diffpref.core.contracts import RewardInfo
from diffpref.core.errors import ConfigError, DataError
from diffpref.core.files import append_line
from diffpref.rewards._answers import expected_value
from diffpref.rewards._vlm import Question, VisionLanguage

__all__ = ["Ask", "Say", "Template", "Told", "Transcript", "in_probabilities", "in_words", "read_template"]

logger = logging.getLogger(__name__)
_PLACES = re.compile(r"\{(prompt|image)\}")


@dataclass(frozen=True)
class Template:
    """The words of a question.

    Args:
        text: ``{prompt}`` stands for the prompt and each ``{image}`` for a picture, in order; where there is no
            ``{image}``, the pictures come first. Other braces are left as they are.
        system: what is said in the system's name.
    """

    text: str
    system: str = ""

    @property
    def digest(self) -> str:
        """Eight digits that change with the words."""
        return hashlib.sha256(f"{self.system}\0{self.text}".encode()).hexdigest()[:8]

    def check(self, owner: str, pictures: int, prompt: bool = True) -> Template:
        """Return it.

        Raises:
            ConfigError: places for another number of pictures, or none for the prompt although it needs one.
        """
        places = _PLACES.findall(self.text)
        if (shown := places.count("image")) not in (0, pictures):
            raise ConfigError(f"reward '{owner}': the template has {shown} places {{image}}, and {pictures} are shown")
        if prompt and "prompt" not in places:
            raise ConfigError(f"reward '{owner}': the template has no place {{prompt}}")
        return self

    def ask(self, prompt: str, *pictures: Image.Image | Sequence[Image.Image]) -> Question:
        """Return the question about pictures, or clips as their frames, each of which takes one place.

        What stands in braces in the prompt itself stays as it is.
        """
        rest = [[one] if isinstance(one, Image.Image) else list(one) for one in pictures]
        parts: list[Any] = [] if "{image}" in self.text else [*(frame for one in rest for frame in one), "\n"]
        end = 0
        for place in _PLACES.finditer(self.text):
            parts += [self.text[end : place.start()], *([prompt] if place[1] == "prompt" else rest.pop(0))]
            end = place.end()
        parts.append(self.text[end:])
        merged: list[Any] = []
        for part in parts:
            if isinstance(part, str) and merged and isinstance(merged[-1], str):
                merged[-1] += part
            else:
                merged.append(part)
        return Question(tuple(part for part in merged if part != ""), self.system)


def read_template(owner: str, path: str | None, default: Template) -> Template:
    """Return the template of a text file, or the default where there is none.

    Raises:
        ConfigError: no such file, or one that is no UTF-8 text.
    """
    if path is None:
        return default
    try:
        return Template(Path(path).expanduser().read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"reward '{owner}': {path} is no text file with a template") from error


# ------------------------------------------------------------ who answers


@dataclass(frozen=True)
class Told:
    """One answer.

    Args:
        values: what it means; NaN where it could not be read.
        text: what was said.
    """

    values: tuple[float, ...]
    text: str


Say: TypeAlias = Callable[[Sequence[Question]], Sequence[str]]
"""N questions -> N texts: a model, a server."""
Ask: TypeAlias = Callable[[Sequence[Question]], Sequence[Told]]
"""N questions -> N answers and what they mean."""


def in_words(owner: str, say: Say, read: Callable[[str], Sequence[float]]) -> Ask:
    """Return an asker that reads what is said."""

    def ask(questions: Sequence[Question]) -> list[Told]:
        texts = list(say(questions)) if questions else []
        if len(texts) != len(questions):
            raise DataError(f"reward '{owner}': asked {len(questions)} questions and got {len(texts)} answers")
        return [Told(tuple(read(text)), text) for text in texts]

    return ask


def in_probabilities(vlm: VisionLanguage, words: Mapping[str, float]) -> Ask:
    """Return an asker that reads how probable each of some answers is, and returns the expected value.

    Args:
        vlm: the model.
        words: answers, told apart by their first tokens -> their values.

    Raises:
        ConfigError: two of them begin with the same token.
    """
    firsts = {word: vlm.tokens(word)[0] for word in words}
    if len(set(firsts.values())) < len(firsts):
        raise ConfigError(
            f"reward '{vlm.owner}': answers {', '.join(words)} begin with the same token for this tokenizer; take"
            " other limits, or reading: words"
        )
    ids, values = torch.tensor(list(firsts.values())), torch.tensor(list(words.values()))

    def ask(questions: Sequence[Question]) -> list[Told]:
        if not questions:
            return []
        found = vlm.read(questions, lambda logits: expected_value(logits[:, -1], ids, values, share=True))
        return [
            Told(
                (float(row[0]),), json.dumps({word: round(float(p), 6) for word, p in zip(words, row[1:], strict=True)})
            )
            for row in found
        ]

    return ask


# ------------------------------------------------------------ what is kept


@dataclass
class Transcript:
    """What a judge was asked and said.

    Args:
        info: of the judge.
        log: file to which a JSON line is added for each question; None: texts are not kept.
        asked: questions so far.
        unread: those among them whose answer could not be read.
    """

    info: RewardInfo
    log: Path | None = None
    asked: int = field(default=0, init=False)
    unread: int = field(default=0, init=False)

    def note(self, questions: Sequence[Question], answers: Sequence[Told]) -> None:
        """Keep some answers, count those that could not be read, and warn of them."""
        failed = [told.text for told in answers if any(map(math.isnan, told.values))]
        self.asked, self.unread = self.asked + len(answers), self.unread + len(failed)
        if failed:
            logger.warning(
                "reward '%s': %d of %d answers could not be read and are NaN (%d of %d so far); the first is %r",
                *(self.info.name, len(failed), len(answers), self.unread, self.asked, failed[0][:200]),
            )
        if self.log is None:
            return
        for question, told in zip(questions, answers, strict=True):
            values = [None if math.isnan(value) else value for value in told.values]
            line = {"reward": self.info.name, "version": self.info.version, "question": question.text}
            append_line(self.log, json.dumps({**line, "answer": told.text, "values": values}, ensure_ascii=False))
