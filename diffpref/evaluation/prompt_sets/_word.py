"""A word on the command line to a prompt set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffpref.core.errors import ConfigError, DataError, suggest
from diffpref.core.files import sha256
from diffpref.data import prompts_with_fields
from diffpref.evaluation.prompt_sets._prompt_set import PromptSet
from diffpref.evaluation.prompt_sets._published import registry
from diffpref.evaluation.prompt_sets._shapes import NAME, shapes_geneval
from diffpref.shapes.grammar import Caption
from diffpref.shapes.motion import MovingCaption

__all__ = ["load_prompt_set"]

AXES = ("category", "tag", "style", "challenge", "dimension")
"""Fields of a line of JSON that are categories, where they are texts."""


def load_prompt_set(word: str) -> PromptSet:
    """Return the prompt set that a word names.

    Args:
        word: ``NAME=PATH`` with a name of `registry`: the published file, or the folder with the published files;
            ``shapes_geneval`` or ``shapes_geneval:COUNT``: the bundled set of GenEval type; or anything that
            `diffpref.data.load_prompts` reads: a text file, a ``.jsonl`` file (whose other fields become metadata, and
            those of `AXES` categories), ``shapes:SPLIT[:COUNT | :START-STOP]`` (with the relation as category),
            ``shapes_moving:SPLIT[:COUNT | :START-STOP]`` (with direction and speed), ``words:SPLIT:COUNT``.

    Raises:
        ConfigError: no set of that name.
        DataError: a published file that is not there; the message says where it comes from and under which licence.
            Or a file that cannot be read or holds no prompts.

    >>> load_prompt_set("shapes:unseen:3").prompts[0]
    'a red square left of a green circle'
    """
    if Path(word).is_file() or word.startswith(("shapes:", "shapes_moving:", "words:")):
        return _plain(word)
    if word == NAME or word.startswith(f"{NAME}:"):
        return shapes_geneval(word)
    name, given, path = word.partition("=")
    if name in registry:
        if not given or not path:
            raise DataError(
                f"prompt set '{name}' is not bundled; get {registry.get(name)} and give {name}=PATH, a file or a folder"
            )
        return registry.get(name).load(path)
    known = [*registry.names(), NAME]
    hint = suggest(name, known) or ";"
    if given:
        raise ConfigError(f"unknown prompt set '{name}'{hint} known: {', '.join(known)}")
    raise DataError(
        f"prompts '{word}': {'is a folder' if Path(word).is_dir() else 'no such file or set'}{hint} expected a text"
        f" file, a .jsonl file, shapes:SPLIT[:COUNT], shapes_moving:SPLIT[:COUNT], words:SPLIT:COUNT, {NAME}, or"
        f" NAME=PATH with one of {', '.join(registry.names())}"
    )


def _plain(word: str) -> PromptSet:
    rows = prompts_with_fields(word)
    prompts = tuple(prompt for prompt, _ in rows)
    if Path(word).is_file():
        fields = [fields for _, fields in rows]
        return PromptSet(
            name=Path(word).name,
            sha256=sha256(Path(word)),
            prompts=prompts,
            categories=_axes(fields),
            metadata=tuple({**one, "prompt": prompt} for prompt, one in rows) if any(fields) else None,
            source=word,
        )
    axes = {}
    if word.startswith("shapes:"):
        axes["relation"] = tuple((Caption.parse(prompt).relation,) for prompt in prompts)
    if word.startswith("shapes_moving:"):
        moving = [MovingCaption.parse(prompt) for prompt in prompts]
        axes |= {axis: tuple((getattr(one, axis),) for one in moving) for axis in ("direction", "speed")}
    digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    return PromptSet(word, digest, prompts, axes, source=word, licence="Apache-2.0")


def _axes(fields: Sequence[dict[str, Any]]) -> dict[str, tuple[tuple[str, ...], ...]]:
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    for axis in AXES:
        labels = [one.get(axis) for one in fields]
        if any(isinstance(label, str) for label in labels):
            found[axis] = tuple((label,) if isinstance(label, str) and label else () for label in labels)
    return found
