"""Validation pictures: during training, always from the same prompts and seeds."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from diffpref.config import Validation
from diffpref.core.contracts import Reward
from diffpref.core.errors import ConfigError
from diffpref.core.files import write_atomic
from diffpref.models import open_family
from diffpref.models.roles import NetworkRole
from diffpref.plotting import labelled_grid
from diffpref.sampling import Sampler, SamplerSettings

__all__ = ["ValidationPictures"]

PIXELS_AT_ONCE = 1024 * 1024  # beside a training step's weights and moments


class ValidationPictures:
    """A trainer's callback that draws ``samples/step-000100.png``: a row a prompt, a column a seed.

    The trackers get the pictures too, and the log what each scorer says of them on average, as ``eval/NAME``. The VAE
    and the text encoders are loaded when the first picture is due and kept.

    Args:
        settings: what to draw, and how often.
        scorers: name -> reward, for the names in ``settings.rewards``; may be empty on processes that do not draw.

    Raises:
        ConfigError: the settings name rewards, and no scorers were handed over.
    """

    def __init__(self, settings: Validation, scorers: Mapping[str, Reward] | None = None) -> None:
        self.settings, self.scorers = settings, dict(scorers or {})
        self._sampler: Sampler | None = None
        if settings.rewards and scorers is None:
            named = ", ".join(one.name for one in settings.rewards)
            raise ConfigError(f"validation.rewards: names {named}; hand the loaded scorers over as scorers=")

    def on_step(self, trainer: Any, step: int, metrics: Mapping[str, float]) -> Mapping[str, float] | None:
        every = self.settings.every
        if every and step % every == 0 and (trainer.world.is_main or trainer.sharded):
            return self.draw(trainer, step)
        return None

    def on_end(self, trainer: Any) -> None:
        return None

    def draw(self, trainer: Any, step: int) -> dict[str, float]:
        """Draw the pictures of a step with the policy as it is, or with its average; return their mean scores."""
        settings, columns = self.settings, len(self.settings.seeds)
        if self._sampler is None:
            self._sampler = self._make_sampler(trainer)
        prompts = [prompt for prompt in settings.prompts for _ in settings.seeds]
        with trainer.moving.average.applied() if settings.ema else nullcontext():
            pictures = self._sampler(prompts, settings.seeds * len(settings.prompts))
        if not trainer.world.is_main:  # it took part because the weights are spread over the processes
            return {}
        rows = [(p, pictures[i * columns : (i + 1) * columns]) for i, p in enumerate(settings.prompts)]
        buffer = io.BytesIO()
        labelled_grid(rows).save(buffer, format="PNG")
        write_atomic(trainer.output / "samples" / f"step-{step:06d}.png", buffer.getvalue())
        for number, (prompt, drawn) in enumerate(rows):
            trainer.trackers.log_images(f"validation/{number:02d} {prompt[:60]}", drawn, step)
        return self._scores(pictures, prompts)

    def _scores(self, pictures: Sequence[Any], prompts: Sequence[str]) -> dict[str, float]:
        """Return each scorer's mean over finite scores; the log holds no other numbers, so these are counted."""
        told: dict[str, float] = {}
        for name, scorer in self.scorers.items():
            scores = scorer.score(pictures, prompts)
            finite = scores[scores.isfinite()]
            if len(finite):
                told[f"eval/{name}"] = finite.mean().item()
            if len(finite) < len(scores):
                told[f"eval/{name}_not_finite"] = float(len(scores) - len(finite))
        return told

    def _make_sampler(self, trainer: Any) -> Sampler:
        settings = self.settings
        family = open_family(trainer.recipe.model, "vae", "text").to(trainer.device)
        family.network = trainer.family.network
        # Not the trainer's own role: its network may be wrapped, and only one process draws.
        role = NetworkRole(family, trainer.family.network, trainer.autocast)
        resolution = trainer.recipe.data.resolution or family.native_resolution()
        at_once = max(1, PIXELS_AT_ONCE // resolution**2)
        how = SamplerSettings(
            settings.num_inference_steps,
            settings.guidance_scale,
            resolution=resolution,
            batch_size=min(at_once, len(settings.prompts) * len(settings.seeds)),
        )
        return Sampler(family, role, how)
