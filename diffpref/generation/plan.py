"""What is to be drawn: a value from which every picture, clip or answer, its seed and its work unit follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from diffpref.core.errors import ConfigError, DataError
from diffpref.core.randomness import hash_key
from diffpref.sampling import SamplerSettings, TextSettings

__all__ = ["GenerationPlan", "Settings"]

Settings: TypeAlias = SamplerSettings | TextSettings
"""How candidates are drawn: pictures and clips, or answers."""


@dataclass(frozen=True)
class GenerationPlan:
    """Every decision behind a set of candidates.

    Args:
        prompts: different texts; a record each.
        candidates: pictures, clips or answers of each prompt.
        seed: of the run.
        settings: how they are drawn; candidate k takes ``settings[k % len(settings)]``, so that guidance scales,
            for example, alternate within a record.
        generator: which model draws, with a digest of its weights: another model is another plan.
        unit_size: prompts of one work unit, which is one part of the store; what an interruption costs at most.
        source: name of the model where several draw for the same prompts: each has noise of its own.

    Raises:
        ConfigError: a count below 1, no settings, or more settings than candidates.
        DataError: no prompts, or one twice: a seed is a function of the prompt, and the pictures would be the same.
    """

    prompts: tuple[str, ...]
    candidates: int = 4
    seed: int = 0
    settings: tuple[Settings, ...] = (SamplerSettings(),)
    generator: str = ""
    unit_size: int = 32
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("candidates", "unit_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if not 1 <= len(self.settings) <= self.candidates:
            raise ConfigError(
                f"settings: between 1 and candidates={self.candidates} are expected, got {len(self.settings)}"
            )
        if not self.prompts:
            raise DataError("there are no prompts to draw")
        if twice := [prompt for prompt, count in Counter(self.prompts).items() if count > 1]:
            raise DataError(
                f"{len(twice)} prompts appear more than once, the first is {twice[0]!r}; leave the copies out and ask"
                " for more candidates instead"
            )

    @property
    def num_units(self) -> int:
        """How many work units there are."""
        return -(-len(self.prompts) // self.unit_size)

    @property
    def num_pictures(self) -> int:
        """How many pictures, clips or answers there are in all."""
        return len(self.prompts) * self.candidates

    def unit(self, number: int) -> tuple[str, ...]:
        """Return the prompts of a work unit, 0 .. num_units - 1."""
        return self.prompts[number * self.unit_size : (number + 1) * self.unit_size]

    def seed_of(self, prompt: str, candidate: int) -> int:
        """Return a candidate's seed: ``torch.Generator().manual_seed(seed)`` draws its first latents, or its tokens."""
        return hash_key(self.seed, "candidate", prompt, candidate, *([self.source] if self.source else []))

    def settings_of(self, candidate: int) -> Settings:
        """Return how candidate k of every prompt is drawn."""
        return self.settings[candidate % len(self.settings)]

    def record_id(self, prompt: str) -> str:
        """Return the id of a prompt's record: the same wherever the prompt stands in the list."""
        return f"{hash_key(self.seed, 'record', prompt):016x}"

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values, from which `from_json` makes an equal plan."""
        values = {name: value for name, value in asdict(self).items() if name != "source" or value}
        return {**values, "prompts": list(self.prompts), "settings": [asdict(one) for one in self.settings]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GenerationPlan:
        """Return the plan that `to_json` wrote.

        Raises:
            DataError: a field is missing or unknown.
        """
        try:
            settings = tuple(
                TextSettings(**one) if "max_new_tokens" in one else SamplerSettings(**one) for one in value["settings"]
            )
            return cls(**{**value, "prompts": tuple(value["prompts"]), "settings": settings})
        except (KeyError, TypeError) as error:
            raise DataError(f"not a generation plan: {error}") from error
