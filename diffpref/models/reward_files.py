"""What a training run leaves of a reward model, so that it can be loaded: ``reward.json`` beside its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffpref.core.errors import ModelError
from diffpref.core.files import write_atomic
from diffpref.core.judging import MediaKind

__all__ = ["FILE", "RewardFiles"]

FILE = "reward.json"


@dataclass(frozen=True)
class RewardFiles:
    """What ``reward.json`` says.

    Args:
        family: of models.
        base: hub id or path of the model that was trained.
        revision: of a hub id.
        folder: beside ``reward.json``: ``"lora"`` or ``"model"``.
        heads: whether heads lie in ``heads`` beside it.
        says: what the model says of an item: ``score``, ``log_std``, ``scores``, ``embedding``.
        scorer: the recipe's section.
        pair: `PairModel` as JSON; None where the training knows no probability.
        media: ``"image"``, ``"video"`` or ``"text"``.
        aspects: names of ``scores``.
        size: numbers of ``scores`` or an ``embedding``.
        objective: names of the losses.
        format: of this file.
    """

    family: str
    base: str
    revision: str | None
    folder: str
    heads: bool
    says: tuple[str, ...]
    scorer: dict[str, Any]
    pair: dict[str, Any] | None
    media: MediaKind
    aspects: tuple[str, ...] = ()
    size: int = 1
    objective: tuple[str, ...] = ()
    format: int = 1

    def save(self, folder: Path) -> None:
        """Write ``reward.json``."""
        write_atomic(folder / FILE, json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    @classmethod
    def find(cls, path: str | Path) -> tuple[RewardFiles, Path]:
        """Return what a folder's ``reward.json`` says, and the folder: the given one, or the one above it.

        Raises:
            ModelError: there is none, or it is damaged.
        """
        given = Path(path)
        places = [folder for folder in (given, given.parent) if (folder / FILE).is_file()]
        if not places:
            raise ModelError(
                f"{path}: holds no {FILE}; expected the folder of a run of 'diffpref reward train' (its weights lie in"
                " model/, lora/ or heads/ beside it)"
            )
        try:
            told = json.loads((places[0] / FILE).read_text(encoding="utf-8"))
            if told.get("format") != 1:
                raise ModelError(f"{places[0] / FILE}: format {told.get('format')!r} is not known; expected 1")
            values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in told.items()}
            return cls(**values), places[0]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{places[0] / FILE}: damaged ({str(error).splitlines()[0][:200]})") from error
