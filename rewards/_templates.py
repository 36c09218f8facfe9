"""The words in which a model is asked: ours, or those of a user's file.

The wording is part of a trained model's input, but it belongs to its authors: a reward has words of its own, and who
wants the published numbers gives the published text as a file. The version of the reward says which words were used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffpref.core.errors import ConfigError

__all__ = ["Template", "open_template"]

PLACES = ("{prompt}", "{text_prompt}")
"""Where the prompt goes; the second spelling is that of several published files."""


@dataclass(frozen=True)
class Template:
    """Words around a prompt.

    Args:
        text: has one place for the prompt.
        label: for the reward's version: whose words these are, and a digest of them.
    """

    text: str
    label: str

    def filled(self, prompt: str) -> str:
        """Return the words with a prompt in its place; braces of the prompt stay as they are."""
        place = next(place for place in PLACES if place in self.text)
        return self.text.replace(place, prompt)


def open_template(owner: str, file: str | None, own: str, marks: Sequence[str] = ()) -> Template:
    """Return the words of a user's file, or our own.

    Args:
        owner: the reward, for messages.
        file: UTF-8 text; None: our own words.
        own: our own words.
        marks: what must stand in the text once each and in this order, ``{prompt}`` among them where its place matters.

    Raises:
        ConfigError: no such file, or a text without one place for the prompt or with other marks.
    """
    text = own
    if file is not None:
        try:
            text = Path(file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"reward '{owner}': template {file} cannot be read as text: {error}") from error
    if sum(text.count(place) for place in PLACES) != 1:
        raise ConfigError(f"reward '{owner}': the template needs {PLACES[0]} once, where the prompt goes")
    plain = text.replace(PLACES[1], PLACES[0])
    places = [plain.find(mark) for mark in marks]
    if any(plain.count(mark) != 1 for mark in marks) or places != sorted(places):
        raise ConfigError(f"reward '{owner}': the template needs {', '.join(marks)}, once each and in this order")
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Template(text, f"{'own-' if file is None else ''}template-{digest}")
