"""Judges that are programs: of answers whose rightness can be computed, such as a number, a word or a form.

Ready ones are chosen by name and need no code. A program of your own is a Python function that you hand over in Python:
``ProgramReward(function, name=..., version=...)``. A recipe names programs, it never holds code.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from diffpref.core.annotations import NonNegative, NonNegativeInt, PositiveInt
from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError, DataError
from diffpref.rewards import registry
from diffpref.rewards._media import as_texts, check_lengths

__all__ = ["Program", "ProgramReward", "load_program", "numbers"]

Program: TypeAlias = Callable[[str, str, Mapping[str, Any]], float | bool]
"""(answer, prompt, metadata of the item) -> a score; NaN where it cannot tell."""
Name: TypeAlias = Literal["exact_match", "json", "length", "number", "regex"]

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?")
_MINUS = str.maketrans({"\N{MINUS SIGN}": "-"})


class ProgramReward:
    """Scores answers by a function.

    Args:
        program: (answer, prompt, metadata) -> number; it must not depend on anything else.
        name: of the program, for messages and as a part of the version.
        version: part of every cache key: change it with the function.
        range: smallest and largest score.
        pair_scale: s such that sigmoid(s * difference) is the probability of the better one; None where undefined.
        needs_metadata: whether it reads metadata.
        needs_prompt: whether it reads the prompt.
    """

    def __init__(
        self,
        program: Program,
        *,
        name: str,
        version: str,
        range: tuple[float, float] = (0.0, 1.0),
        pair_scale: float | None = None,
        needs_metadata: bool = False,
        needs_prompt: bool = True,
    ) -> None:
        self.program, self.name = program, name
        self._info = RewardInfo(
            name="program",
            version=f"{name}-{version}",
            licence="Apache-2.0",
            range=range,
            pair_scale=pair_scale,
            needs_prompt=needs_prompt,
            needs_metadata=needs_metadata,
            media="text",
        )

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 for N answers and N prompts.

        Raises:
            ShapeError: not as many prompts as answers.
            DataError: an answer is no text, metadata are missing, or the program gives no number.
        """
        check_lengths("program", media, prompts, metadata)
        answers = as_texts("program", media)
        if metadata is None:
            if self._info.needs_metadata and answers:
                raise DataError(f"reward 'program' ({self.name}) reads metadata of each item, and none were given")
            metadata = [{}] * len(answers)
        scores: list[float] = []
        for number, (answer, prompt, entry) in enumerate(zip(answers, prompts, metadata, strict=True)):
            try:
                found = self.program(answer, prompt, entry)
            except DataError as error:
                raise DataError(f"reward 'program' ({self.name}), item {number}: {error}") from error
            if not isinstance(found, Real):
                kind = type(found).__name__
                raise DataError(f"reward 'program' ({self.name}), item {number}: expected a number, got {kind}")
            scores.append(float(found))
        return torch.tensor(scores, dtype=torch.float32)


def _told(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"metadata needs '{key}', a text or a number, got {value!r}")
    return str(value)


def numbers(text: str) -> list[float]:
    """Return the numbers of a text in order: ``1,234.5``, ``-3``, ``.5``, ``2e-3``; without a full stop after one."""
    found = []
    for match in _NUMBER.finditer(text.translate(_MINUS)):
        digits = match.group().replace(",", "")
        before = text[: match.start()][-1:]
        if any(character.isdigit() for character in digits) and not digits.lower().startswith("e"):
            sign = digits[0] in "+-" and (before.isalnum() or before == ")")  # 3-2 is two numbers, 3 and 2
            found.append(float(digits[1:] if sign else digits))
    return found


def _exact(normalise: bool) -> Program:
    def plain(text: str) -> str:
        return " ".join(text.split()).casefold() if normalise else text

    return lambda answer, prompt, entry: plain(answer) == plain(_told(entry, "answer"))


def _number(tolerance: float) -> Program:
    def program(answer: str, prompt: str, entry: Mapping[str, Any]) -> bool:
        expected, found = numbers(_told(entry, "answer")), numbers(answer)
        if len(expected) != 1 or not math.isfinite(expected[0]):
            raise DataError(f"metadata 'answer' must be one number, got {entry['answer']!r}")
        return bool(found) and abs(found[-1] - expected[0]) <= tolerance * max(1.0, abs(expected[0]))

    return program


def _regex(answer: str, prompt: str, entry: Mapping[str, Any]) -> bool:
    pattern = _told(entry, "pattern")
    try:
        return re.search(pattern, answer) is not None
    except re.error as error:
        raise DataError(f"metadata 'pattern' is no regular expression: {error}, got {pattern!r}") from error


def _length(low: int, high: int | None, unit: Literal["words", "characters"]) -> Program:
    def program(answer: str, prompt: str, entry: Mapping[str, Any]) -> bool:
        count = len(answer.split()) if unit == "words" else len(answer)
        return low <= count and (high is None or count <= high)

    return program


def _json(answer: str, prompt: str, entry: Mapping[str, Any]) -> bool:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    try:
        json.loads(answer, parse_constant=refuse, parse_int=str)  # of any length
    except (ValueError, RecursionError):
        return False
    return True


@registry.register("program")
def load_program(
    path: str | None = None,
    *,
    program: Name | None = None,
    normalise: bool = True,
    tolerance: NonNegative = 1e-6,
    low: NonNegativeInt = 0,
    high: PositiveInt | None = None,
    unit: Literal["words", "characters"] = "words",
) -> Reward:
    """Return a ready program; each scores 1 or 0.

    ``exact_match``: the answer is ``metadata[i]["answer"]``. ``number``: the last number of the answer is the number
    ``metadata[i]["answer"]``. ``regex``: ``metadata[i]["pattern"]`` is found somewhere in the answer (anchor it with
    ``^`` and ``$``; patterns are searched as Python does it, so that one which backtracks without end never ends).
    ``length``: the answer has ``low`` to ``high`` words or characters. ``json``: the whole answer is one JSON value.

    Args:
        path: none: there are no weights.
        program: its name.
        normalise: of ``exact_match``: upper case and runs of white space do not matter.
        tolerance: of ``number``: the largest difference, as a share of the larger of the expected number and 1.
        low: of ``length``.
        high: of ``length``; None: no end.
        unit: of ``length``.

    Raises:
        ConfigError: a path, no name, or an empty band.
    """
    if path is not None:
        raise ConfigError(f"reward 'program' has no weights and takes no path, got '{path}'")
    if program is None:
        raise ConfigError(
            "reward 'program': choose one with program: exact_match, json, length, number or regex; one of your own is"
            " handed over in Python: diffpref.rewards.program.ProgramReward(function, name=..., version=...)"
        )
    if high is not None and high < low:
        raise ConfigError(f"reward 'program': low {low} is above high {high}")
    ready: dict[str, tuple[Program, str]] = {
        "exact_match": (_exact(normalise), "1" if normalise else "1-verbatim"),
        "json": (_json, "1"),
        "length": (_length(low, high, unit), f"1-{low}-{high}-{unit}"),
        "number": (_number(tolerance), f"1-{tolerance:g}"),
        "regex": (_regex, "1"),
    }
    function, version = ready[program]
    return ProgramReward(
        function,
        name=program,
        version=version,
        needs_metadata=program in ("exact_match", "number", "regex"),
        needs_prompt=False,
    )
