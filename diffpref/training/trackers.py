"""Experiment trackers beside ``metrics.jsonl``: those of accelerate, or a class registered there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import tracking

from diffpref.config import Logging, Recipe
from diffpref.core.errors import ConfigError, suggest

__all__ = ["Trackers", "check_trackers", "open_trackers"]

FOLDER = "trackers"
IN_EXTRA = ("tensorboard", "wandb")


def check_trackers(logging: Logging) -> None:
    """Say before anything is loaded which tracker cannot be used; accelerate would leave it out silently.

    Raises:
        ConfigError: an unknown name, one twice, or a package that is not installed.
    """
    known, problems = tracking.LOGGER_TYPE_TO_CLASS, []
    for number, name in enumerate(logging.trackers):
        where = f"logging.trackers[{number}]"
        if name not in known:
            problems.append(f"{where}: unknown tracker '{name}'{suggest(name, known) or ';'} known: {', '.join(known)}")
        elif logging.trackers.index(name) < number:
            problems.append(f"{where}: '{name}' is named twice")
        elif _is_missing(name):
            extra = "'diffpref[trackers]'" if name in IN_EXTRA else name
            problems.append(f"{where}: '{name}' is not installed; pip install {extra}")
    if problems:
        raise ConfigError("\n".join(problems))


def _is_missing(name: str) -> bool:
    built_in = {str(kind) for kind in tracking.LoggerType}
    return name in built_in and name not in {str(kind) for kind in tracking.get_available_trackers()}


class Trackers:
    """Several trackers as one. Without any it does nothing.

    Args:
        opened: started trackers of accelerate.
    """

    def __init__(self, opened: Sequence[Any] = ()) -> None:
        self.opened = list(opened)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Pass on a line of the metrics; its ``step`` is the step."""
        values = {name: value for name, value in metrics.items() if name != "step"}
        for one in self.opened:
            one.log(values, step=int(metrics["step"]))

    def log_images(self, name: str, pictures: Sequence[Any], step: int) -> None:
        """Show pictures of one size, PIL or (H, W, 3) uint8, to those that take pictures."""
        shown = np.stack([np.asarray(picture) for picture in pictures])
        for one in self.opened:
            if one.name == "tensorboard":
                one.log_images({name: shown}, step=step, dataformats="NHWC")
            elif hasattr(one, "log_images"):
                one.log_images({name: list(shown)}, step=step)

    def close(self) -> None:
        """Finish every tracker, once."""
        while self.opened:
            self.opened.pop().finish()


def open_trackers(recipe: Recipe, output: Path, step: int) -> Trackers:
    """Start the trackers that a recipe names, and tell them its settings.

    Args:
        recipe: ``logging`` names them.
        output: of the run; trackers that keep files keep them in ``trackers/``.
        step: updates that are done; what a tracker with files says of later ones is forgotten.
    """
    options: dict[str, dict[str, Any]] = {
        "tensorboard": {"purge_step": step + 1} if step else {},
        "wandb": {"dir": str(output), "name": output.name},
    }
    opened = []
    for name in recipe.logging.trackers:
        kind = tracking.LOGGER_TYPE_TO_CLASS[name]
        place = [str(output / FOLDER)] if kind.requires_logging_directory else []
        one = kind(recipe.logging.project, *place, **options.get(name, {}))
        one.start()
        one.store_init_configuration(dict(_flat(recipe.model_dump(mode="json"))))
        opened.append(one)
    return Trackers(opened)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Yield dotted path and plain value: trackers know neither lists nor sections."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, (bool, int, float, str)) else str(value)
