"""A training step of each headline method on a denoiser with random weights, for `gpu_methods.py`.

Methods, objectives and likelihood are those of training, with their published settings; data are random latents and
embeddings. Other than `dpo_step.py` it needs what these import, pydantic above all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from dpo_step import DpoStep
from family_steps import CASES, FamilyStep
from sdxl_step import SDXL, TOY, Step
from torch import Tensor

from diffpref.core.contracts import Batch, CollectingMethod, Context, Role, Rows, Tensors
from diffpref.core.randomness import Random
from diffpref.methods import registry as methods
from diffpref.objectives import compose
from diffpref.objectives.compose import reduce_sums

__all__ = ["CLIPS", "METHODS", "PICTURES", "MethodStep", "make_step"]

METHODS: dict[str, dict[str, Any]] = {
    "diffusion_dpo": {},
    "ddim_inpo": {},
    "smpo_diffusion": {"score_range": 1.0},
    "rank_dpo": {},
    "seppo": {"snapshot_every": 30},
    "dcpo": {},
    "dense_dpo": {},
}
"""What must be given; everything else is the method's default, which is what is published for SDXL."""
PICTURES = ("sdxl", "sd3")
CLIPS = ("animatediff_sdxl",)
"""Where DenseDPO runs, which pictures have no parts for."""
VAE: Any = SimpleNamespace(config=SimpleNamespace(block_out_channels=(128, 256, 512, 512)))
"""What the sampler asks of a VAE: its number of levels, those of SDXL and of SD3 alike."""
LIST = 4
"""Candidates of RankDPO's lists, as in Syn-Pic."""


def make_step(model: str, toy: bool, device: str, precision: str, **options: Any) -> DpoStep:
    """Return a denoiser of `PICTURES` or `CLIPS` with its LoRA, fresh.

    Args:
        model: which.
        toy: whether at toy size.
        device: as for `DpoStep`, like all others.
        precision: of the frozen weights and of autocast.
        options: of `DpoStep`.
    """
    if model == "sdxl":
        return Step(TOY if toy else SDXL, device, precision, **options)
    return FamilyStep(CASES[model], toy, device, precision, **options)


class Counted:
    """A role that counts the rows that it is asked about."""

    def __init__(self, role: Role, counts: dict[bool, int]) -> None:
        self.role, self.counts = role, counts

    def __call__(self, rows: Rows, grad: bool = False) -> Tensors:
        self.counts[grad] += len(rows.conditioning)
        return self.role(rows, grad)


class MethodStep:
    """A training step of a method, from cached latents and embeddings to updated weights.

    Collecting samples, inverting and asking the reference are in it, for a record at each call anew.

    Args:
        step: the denoiser, its LoRA and its optimiser.
        name: of the method, of `METHODS`.
    """

    def __init__(self, step: DpoStep, name: str) -> None:
        self.step, self.device, self.method = step, step.device, methods.get(name)(**METHODS[name])
        step.family.vae = VAE
        self.composition, self.counts = compose(self.method.objectives), {False: 0, True: 0}
        self.roles = {role: Counted(view, self.counts) for role, view in step.build(self.method.roles).items()}
        self.steps = 0

    def start(self, records: int, checkpointing: bool) -> None:
        """Go back to the untrained adapter and make a batch of pairs, or of lists of `LIST`."""
        self.step.start(records, checkpointing)
        draw, shape = partial(torch.randn, device=self.device), self.step.latent_shape
        chosen, rejected, _ = self.step.latents
        listed = "list" in self.method.needs
        media = {"list": draw(records, LIST, *shape)} if listed else {"chosen": chosen, "rejected": rejected}
        if isinstance(self.method, CollectingMethod):
            media = {name: latents for name, latents in media.items() if name in self.method.needs}
        own = {group: self.step.told(records, draw) for group in getattr(self.method, "captions", ())}
        self.batch = Batch(
            tuple((f"record {number}", 0) for number in range(records)),
            media,
            {"": self.step.conditioning, **own},
            self._columns(records, shape),
            self.step.told(1, draw),
        )

    def _columns(self, records: int, shape: tuple[int, ...]) -> Tensors:
        """Return what the data say: scores that differ, and a label of each frame, every third a tie."""
        ones = torch.ones(records, device=self.device)
        frames = torch.arange(shape[1], device=self.device) % 3 - 1.0
        return {
            "list_scores": torch.linspace(1, 0, LIST, device=self.device).expand(records, LIST),
            "chosen_score": ones,
            "rejected_score": 0 * ones,
            **({"segment_label": frames.expand(records, -1)} if len(shape) == 4 else {}),
        }

    def loss(self) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss and the log-ratios that it was made of, of the next visit of every record."""
        self.steps += 1
        batch = replace(self.batch, keys=tuple((record, self.steps) for record, _ in self.batch.keys))
        context = Context(self.step.family, self.roles, Random(0), step=self.steps)
        if isinstance(self.method, CollectingMethod):
            batch = self.method.collect(batch, context)
        rows = self.method.prepare(batch, context)
        outputs = {name: self.roles[name](rows, grad=name == "policy") for name in ("reference", "policy")}
        names = [name for name in self.composition.tensors if name not in rows.columns]
        found = self.step.likelihood(names, outputs, rows)
        (factor, _, terms), *others = self.composition({**found, **rows.columns})
        assert not others, "a headline method has one term"
        ((total, weights),) = reduce_sums([(factor, "", terms)])
        return factor * total / weights, {name: value.detach() for name, value in found.items()}

    def __call__(self) -> Tensor:
        """Update once; return the log-ratios before it, in one row."""
        loss, ratios = self.loss()
        self.step.update(loss)
        return torch.cat([value.flatten() for value in ratios.values()])
