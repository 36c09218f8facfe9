"""What the common tests of pipelines need of each: one file a pipeline, found by its name.

A file ``tests/support/pipeline_cases/<pipeline>.py`` has ``CASE``: on which families' stock pipelines it works, and how
to call it at toy size. ``tests/pipelines/test_pipeline_suite.py`` does the rest: it checks what diffusers checks of its
own pipelines. What is special to a pipeline has tests of its own.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

__all__ = ["PROMPTS", "PipelineCase", "cases", "generators", "noise_pictures"]

PROMPTS = ("a red circle", "two blue squares", "a ring")


def generators(count: int) -> list[torch.Generator]:
    """Return fresh generators, the same in every call."""
    return [torch.Generator().manual_seed(11 + row) for row in range(count)]


def noise_pictures(*shape: int) -> np.ndarray:
    """Return float32 pixels in [0, 1]."""
    return np.random.default_rng(5).random(shape, dtype=np.float32)


@dataclass(frozen=True)
class PipelineCase:
    """One pipeline for the common tests.

    Args:
        name: registry name.
        families: whose tiny stock pipelines give the components.
        inputs: count -> arguments of a call for so many prompts, at most 3, each a list or array of that length; fast,
            with guidance.
        shared: arguments of ``inputs`` that are one for all prompts.
        output: what ``output_type`` gives arrays.
        rows: output -> an array for each prompt.
        options: of the constructor, besides components.
        takes_generators: whether a generator a prompt is an argument.
        is_watched: whether ``callback_on_step_end`` is an argument of its own.
        without: components that stock pipelines may lack, by family.
    """

    name: str
    families: tuple[str, ...]
    inputs: Callable[[int], dict[str, Any]]
    rows: Callable[[Any], list[np.ndarray]]
    shared: frozenset[str]
    output: str = "np"
    options: Mapping[str, Any] = field(default_factory=dict)
    takes_generators: bool = True
    is_watched: bool = True
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def call(self, pipe: Any, count: int = 2, only: int | None = None, **given: Any) -> Any:
        """Call a pipeline for several prompts, or for one of them alone; the same generators each time."""
        inputs = {**self.inputs(count), "output_type": self.output}
        if self.takes_generators:
            inputs["generator"] = generators(count)
        if only is not None:
            fixed = self.shared | {"output_type"}
            inputs = {key: value if key in fixed else value[only : only + 1] for key, value in inputs.items()}
        return pipe(**{**inputs, **given})


def cases() -> dict[str, PipelineCase]:
    """Return every pipeline's case."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        case = importlib.import_module(f"{__name__}.{module.name}").CASE
        assert case.name == module.name
        found[case.name] = case
    return found
