"""Validation pictures and clips: during training, always from the same prompts and seeds."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from diffpref.config import Validation
from diffpref.core.contracts import Reward
from diffpref.core.errors import ConfigError
from diffpref.core.files import write_atomic
from diffpref.core.media import Clip, Media
from diffpref.models import open_family
from diffpref.models.roles import NetworkRole
from diffpref.plotting import labelled_grid
from diffpref.plotting.clips import Strip, encode_gif, frames_to_show, strip, strip_sheet
from diffpref.sampling import Sampler, SamplerSettings

__all__ = ["ValidationPictures"]

PIXELS_AT_ONCE = 1024 * 1024  # beside a training step's weights and moments


class ValidationPictures:
    """A trainer's callback that draws ``samples/step-000100.png``: a row a prompt, a column a seed.

    Of clips that file shows the frames side by side, and ``samples/step-000100.gif`` moves. The trackers get the
    pictures too, and the log what each scorer says of them on average, as ``eval/NAME``. The VAE and the text encoders
    are loaded when the first picture is due and kept.

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
        for suffix, content in self._sheets(rows).items():
            write_atomic(trainer.output / "samples" / f"step-{step:06d}{suffix}", content)
        for number, (prompt, drawn) in enumerate(rows):
            flat = [strip(one) if isinstance(one, Clip) else one for one in drawn]
            trainer.trackers.log_images(f"validation/{number:02d} {prompt[:60]}", flat, step)
        return self._scores(pictures, prompts)

    def _sheets(self, rows: Sequence[tuple[str, Sequence[Media]]]) -> dict[str, bytes]:
        """Return the files of a step by their endings."""
        buffer = io.BytesIO()
        if not isinstance(rows[0][1][0], Clip):
            labelled_grid(rows).save(buffer, format="PNG")
            return {".png": buffer.getvalue()}
        shown = [(prompt, [frames_to_show(clip) for clip in clips]) for prompt, clips in rows]
        labels = [f"seed {seed}" for seed in self.settings.seeds]
        strip_sheet([(p, list(map(Strip, labels, clips))) for p, clips in shown]).save(buffer, format="PNG")
        first = shown[0][1][0]
        frames = [
            labelled_grid([(prompt, [clip.frames[k] for clip in clips]) for prompt, clips in shown])
            for k in range(len(first.frames))
        ]
        return {".png": buffer.getvalue(), ".gif": encode_gif(frames, first.fps or 1)}

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
        data = trainer.recipe.data
        how = SamplerSettings(
            settings.num_inference_steps,
            settings.guidance_scale,
            resolution=data.resolution,
            num_frames=data.num_frames,
            fps=data.fps,
        ).settled(family)
        at_once = max(1, PIXELS_AT_ONCE // (int(how.resolution or 1) ** 2 * (how.num_frames or 1)))
        return Sampler(family, role, replace(how, batch_size=min(at_once, len(settings.prompts) * len(settings.seeds))))
