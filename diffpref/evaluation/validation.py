"""Validation pictures: during training, always from the same prompts and seeds."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from diffpref.config import Validation
from diffpref.core.files import write_atomic
from diffpref.models import load_family
from diffpref.plotting import labelled_grid
from diffpref.sampling import Sampler, SamplerSettings

__all__ = ["ValidationPictures"]


class ValidationPictures:
    """A trainer's callback that draws ``samples/step-000100.png``: a row a prompt, a column a seed.

    The VAE and the text encoders are loaded when the first picture is due and kept.
    """

    def __init__(self, settings: Validation) -> None:
        self.settings = settings
        self._sampler: Sampler | None = None

    def on_step(self, trainer: Any, step: int, metrics: Mapping[str, float]) -> Mapping[str, float] | None:
        every = self.settings.every
        if every and self.settings.prompts and step % every == 0 and trainer.world.is_main:
            self.draw(trainer, step)
        return None

    def on_end(self, trainer: Any) -> None:
        return None

    def draw(self, trainer: Any, step: int) -> None:
        """Draw the pictures of a step with the policy as it is."""
        settings = self.settings
        if self._sampler is None:
            model = trainer.recipe.model
            family = load_family(
                model.family, model.path, parts=("vae", "text"), precision=model.precision, revision=model.revision,
                variant=model.variant, allow_pickle=model.allow_pickle,
            ).to(trainer.device)  # fmt: skip
            family.network = trainer.family.network
            how = SamplerSettings(
                settings.num_inference_steps, settings.guidance_scale, resolution=trainer.recipe.data.resolution
            )
            self._sampler = Sampler(family, trainer.roles["policy"], how)
        columns = len(settings.seeds)
        prompts = [prompt for prompt in settings.prompts for _ in settings.seeds]
        pictures = self._sampler(prompts, settings.seeds * len(settings.prompts))
        rows = [(p, pictures[i * columns : (i + 1) * columns]) for i, p in enumerate(settings.prompts)]
        buffer = io.BytesIO()
        labelled_grid(rows).save(buffer, format="PNG")
        write_atomic(trainer.output / "samples" / f"step-{step:06d}.png", buffer.getvalue())
