"""What decides every picture of an evaluation: base, prompts, seeds, sampler. Contenders and judges may be added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from diffpref.core.errors import ConfigError, DataError, ShapeError
from diffpref.core.randomness import hash_key

__all__ = ["EvaluationPlan", "evaluation_pairs"]


def evaluation_pairs(prompts: Sequence[str], num_seeds: int = 1, seed: int = 0) -> tuple[list[str], list[int]]:
    """Return prompts and seeds of the pictures to draw, ``num_seeds`` for each prompt.

    A seed is a function of the prompt, so that the pairs of different prompts are independent draws; none of them is
    a seed of generation.

    Raises:
        DataError: no prompts, or one twice, which would be the same picture.
        ConfigError: ``num_seeds`` is below 1.
    """
    if num_seeds < 1:
        raise ConfigError(f"seeds: must be at least 1, got {num_seeds}")
    if not prompts:
        raise DataError("there are no prompts to evaluate")
    if len(set(prompts)) != len(prompts):
        twice = next(prompt for i, prompt in enumerate(prompts) if prompt in prompts[:i])
        raise DataError(f"the prompt {twice!r} appears more than once; ask for more seeds instead")
    keys = [(prompt, number) for prompt in prompts for number in range(num_seeds)]
    return [prompt for prompt, _ in keys], [hash_key(seed, "evaluation", *key) % 2**32 for key in keys]


@dataclass(frozen=True)
class EvaluationPlan:
    """The same for all contenders; its pictures, one a prompt and seed, are called pairs with those of the base.

    Args:
        prompts: (N,) texts, each as often as it has seeds.
        seeds: (N,) of the initial noise.
        categories: axis -> N tuples of the prompt's labels.
        metadata: (N,) what judges may read beside the prompt, or empty.
        base: JSON-ready, which model all start from.
        sampler: JSON-ready, how pictures are drawn.
        prompt_set: JSON-ready, where the prompts are from: name, sha256, count.
        seed: of the evaluation: seeds, and resampling.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    categories: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    metadata: tuple[Mapping[str, Any], ...] = ()
    base: Mapping[str, Any] = field(default_factory=dict)
    sampler: Mapping[str, Any] = field(default_factory=dict)
    prompt_set: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.prompts:
            raise DataError("there are no prompts to evaluate")
        columns = {"seeds": self.seeds, **{f"categories: {axis}": labels for axis, labels in self.categories.items()}}
        for name, values in (columns | ({"metadata": self.metadata} if self.metadata else {})).items():
            if len(values) != len(self.prompts):
                raise ShapeError(f"{name}: expected {len(self.prompts)}, as many as prompts, got {len(values)}")

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def kind(self) -> Literal["image", "video"]:
        """What contenders draw."""
        return "video" if self.sampler.get("num_frames") else "image"

    @property
    def num_prompts(self) -> int:
        """How many different prompts there are: the unit that is resampled."""
        return len(set(self.prompts))

    def decisive(self) -> dict[str, Any]:
        """Return JSON-ready values; a folder of pictures belongs to one such plan."""
        texts = hash_key(*(part for pair in zip(self.prompts, self.seeds, strict=True) for part in pair))
        return {
            "base": dict(self.base),
            "sampler": dict(self.sampler),
            "prompts": {**self.prompt_set, "pictures of a model": len(self), "texts and seeds": f"{texts:016x}"},
            "seed": self.seed,
        }
