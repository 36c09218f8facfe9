"""DiffusionNFT (arXiv:2509.16117): samples of a lagged policy, noised again and regressed by how well they were scored.

An update's records are samples: of each prompt ``group_size``, drawn by the role ``behaviour``, scored, and compared
with the others of their prompt. Each is then noised at the solver's own timesteps in a random order, and the objective
draws the policy to it or to its mirror image. The behaviour follows the policy after every collection.

Of the official code's solver, a second-order one, only the first-order form is here (Euler's steps), at the same number
of forwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from diffpref.config import Named, Recipe
from diffpref.core.annotations import NonNegative, Number, PositiveInt
from diffpref.core.contracts import Batch, Context, Ema, Every, RoleSpec, Rows
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import hash_key
from diffpref.methods import registry
from diffpref.methods._drawing import Drawing
from diffpref.methods._forward import forward_rows
from diffpref.ranking import group_advantages
from diffpref.sampling import draw_latents, sampling_path, score_latents
from diffpref.schedules import FlowSchedule

__all__ = ["DiffusionNFT"]

DECAYS: Mapping[str, tuple[float, float, int]] = {"slow": (0.5, 0.001, 0), "slower": (0.999, 0.0075, 75)}
"""What the behaviour keeps of itself: at most, growth with each move, and moves at which it is the policy."""


@registry.register("diffusion_nft", aliases=("diffusion-nft",))
class DiffusionNFT(Drawing):
    """Options of the method; the defaults are those of the code's GenEval, PickScore and HPSv2 runs."""

    source: ClassVar[str] = (
        "Zheng et al., DiffusionNFT: Online Diffusion Reinforcement with Forward Process, ICLR 2026, arXiv:2509.16117"
    )
    evidence: ClassVar[str] = "official"
    likelihood: ClassVar[str] = "denoising"
    makes: ClassVar[frozenset[str]] = frozenset({"", "advantage", "weight", "scores", "timesteps"})

    rewards: list[Named] = Field(
        default_factory=list,
        description="what scores the samples, at least one: NAME or {NAME: {path: PATH, OPTION: VALUE}}",
    )
    reward_weights: list[Number] | None = Field(
        default=None, description="what each reward counts in their sum; not given: 1 each"
    )
    group_size: PositiveInt = Field(default=24, ge=2, description="samples of each prompt, compared with one another")
    collect_every: PositiveInt = Field(default=1, description="updates that one collection of samples serves")
    passes: PositiveInt = Field(default=1, description="how often each sample is used; divides collect_every")
    num_inference_steps: PositiveInt = Field(default=10, description="denoising steps of each sample")
    guidance_scale: NonNegative = Field(default=1.0, description="classifier-free guidance of the samples; 1 = none")
    timestep_share: Number = Field(
        default=0.99, gt=0, le=1, description="share of the solver's timesteps at which each sample is noised"
    )
    decay: Literal["on_policy", "slow", "slower"] = Field(
        default="slow",
        description="how the behaviour follows the policy: on_policy: it becomes it; slow: an average whose decay grows"
        " by 0.001 up to 0.5; slower: after 75 moves, by 0.0075 up to 0.999 (the code's types 0, 1, 2)",
    )
    global_std: bool = Field(
        default=True, description="divide advantages by the deviation of all rewards, or of the prompt's own"
    )

    @field_validator("reward_weights", mode="after")
    @classmethod
    def _match_weights(cls, value: list[float] | None, info: Any) -> list[float] | None:
        rewards = info.data.get("rewards")
        if value is not None and rewards is not None and len(value) != len(rewards):
            raise ValueError(f"must be one a reward, {len(rewards)}; got {len(value)}")
        return value

    def misfits(self, recipe: Recipe) -> Iterator[str]:
        """Yield a line where nothing scores the samples."""
        if not self.rewards:
            yield (
                "method.diffusion_nft.rewards: must name at least one reward that scores the samples, as in --method"
                " '{diffusion_nft: {rewards: [{pickscore: {path: yuvalkirstain/PickScore_v1}}]}}'"
            )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        rule: Every | Ema = Every(self.collect_every)
        if self.decay != "on_policy":
            most, ramp, flat = DECAYS[self.decay]
            rule = Ema(most, self.collect_every, ramp, flat)
        return {"reference": RoleSpec(), "behaviour": RoleSpec("copy", rule, in_prepare=True)}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("diffusion_nft", {})]

    def collect(self, batch: Batch, context: Context) -> Batch:
        """Draw with the behaviour, score, and compare within each prompt over all processes.

        A sample that a reward could not score has the weight 0.

        Raises:
            ConfigError: the model predicts no velocity of a flow.
        """
        if not isinstance(context.family.schedule, FlowSchedule):
            raise ConfigError(
                "method: 'diffusion_nft' regresses velocities, and this model is a chain of timesteps; take a flow,"
                " such as family sd3"
            )
        made = draw_latents(batch, context, "behaviour", self.sampler, context.family.sample_shape())
        scores = score_latents(batch, context, made)
        weights = scores.new_tensor(self.reward_weights or [1.0] * scores.shape[1])
        total = (scores * weights).sum(dim=1)
        columns = {"advantage": self._advantages(total, batch, context), "weight": total.isfinite().float()}
        return replace(batch, media={**batch.media, "": made}, columns={**batch.columns, **columns, "scores": scores})

    def _advantages(self, rewards: Tensor, batch: Batch, context: Context) -> Tensor:
        """Return (N,) how much better each sample is than the others of its prompt; 0 where nothing is known."""
        several = self.group_size * self.passes  # visits of one prompt
        named = [hash_key(record, visit // several) for record, visit in batch.keys]
        groups = torch.tensor(named, device=rewards.device)
        world = context.world
        everything, prompts = world.gather(rewards.double()), world.gather(groups)
        known = everything.isfinite()
        found = torch.zeros_like(everything)
        if bool(known.any()):
            told = group_advantages(everything[known].tolist(), prompts[known].tolist(), global_std=self.global_std)
            found[known] = torch.tensor(told, dtype=found.dtype, device=found.device)
        own = slice(world.rank * len(batch), (world.rank + 1) * len(batch))
        return found[own].float()

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Noise each sample anew at some of the solver's timesteps: an entry of the objective for each."""
        family, clean = context.family, batch.media[""]
        levels, _ = sampling_path(family.schedule, self.sampler)
        several = max(1, int(len(levels) * self.timestep_share))
        orders = [context.random.permutation(len(levels), "solver's timesteps", *key) for key in batch.keys]
        timesteps = torch.cat([levels[order[:several]] for order in orders]).to(clean)
        keys = [(*key, number) for key in batch.keys for number in range(several)]
        noise = context.random.normal("noise", keys, clean.shape[1:]).to(clean)
        clean = clean.repeat_interleave(several, dim=0)
        rows = torch.arange(len(batch), device=clean.device).repeat_interleave(several)
        columns = {name: column[rows] for name, column in batch.columns.items() if name != "scores"}
        made = forward_rows(
            family.schedule, {"": (clean, noise, noise)}, timesteps, batch.conditioning[""].take(rows), columns
        )
        return replace(made, depends_on=frozenset({"behaviour"}))
