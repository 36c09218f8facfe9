"""Every contract has a second user: an objective, method, family and reward from this file train, sample, score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from diffpref import methods, objectives, rewards
from diffpref import models as families
from diffpref.config import Section, build_recipe
from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.core.contracts import (
    Batch,
    Conditioning,
    Context,
    Media,
    Method,
    Reward,
    RewardInfo,
    RoleSpec,
    Rows,
    Score,
)
from diffpref.data import decode_image, read_store, write_store
from diffpref.models import load_family
from diffpref.models.families.sd import StableDiffusion
from diffpref.models.roles import NetworkRole
from diffpref.objectives import objective
from diffpref.sampling import Sampler, SamplerSettings
from diffpref.training import Trainer

Keys = Callable[..., dict[str, Any]]


def toy_hinge(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    target_margin: NonNegative = 1.0,
) -> Tensor:
    """A second objective: punish pairs whose margin is below a target."""
    return (target_margin - beta * (chosen_log_ratio - rejected_log_ratio)).clamp(min=0)


class ToyMiddle(Section):
    """A second method: every picture at the same timestep, a noise of its own, a reference that is a frozen copy."""

    source: ClassVar[str] = "ours"
    evidence: ClassVar[str] = "ours"
    likelihood: ClassVar[str] = "denoising"

    timestep: int = 500

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"chosen", "rejected"})

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        return {"reference": RoleSpec(source="copy")}

    @property
    def objectives(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("toy_hinge", {"target_margin": 2.0})]

    def prepare(self, batch: Batch, context: Context) -> Rows:
        clean = torch.cat([batch.media["chosen"], batch.media["rejected"]])
        keys = [(*key, side) for side in ("chosen", "rejected") for key in batch.keys]
        noise = context.random.normal("toy noise", keys, clean.shape[1:]).to(clean)
        timesteps = torch.full((len(clean),), self.timestep, device=clean.device)
        family, size = context.family, len(batch)
        return Rows(
            likelihood="denoising",
            inputs={
                "noisy": family.add_noise(clean, noise, timesteps),
                "timesteps": timesteps,
                "target": family.target(clean, noise, timesteps),
            },
            conditioning=Conditioning.concatenate([batch.conditioning[""]] * 2),
            groups={"chosen": torch.arange(size), "rejected": torch.arange(size, 2 * size)},
            columns=batch.columns,
        )


class ToyWords(StableDiffusion):
    """A second family: v prediction, told the mean of its words under a name that only it knows."""

    name = "toy_words"

    @classmethod
    def tiny(cls, seed: int = 0, prediction_type: str = "v_prediction") -> ToyWords:
        made = super().tiny(seed, prediction_type)
        assert isinstance(made, ToyWords)
        return made

    def encode_prompt(self, prompts: Sequence[str], resolution: int) -> Conditioning:
        embeds = super().encode_prompt(prompts, resolution).tensors["prompt_embeds"]
        return Conditioning({"words": embeds.mean(dim=1, keepdim=True)})

    def forward(self, network: Any, inputs: Mapping[str, Tensor], conditioning: Conditioning) -> Tensor:
        noisy, words = self._as_network(network, inputs["noisy"], conditioning.tensors["words"])
        return network(noisy, inputs["timesteps"], words).sample


@dataclass(frozen=True)
class ToyRedness:
    """A second reward: the mean of the red channel."""

    info: RewardInfo

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        return torch.tensor([float(np.asarray(item)[..., 0].mean() / 255) for item in media])


def load_redness(path: str | None = None, *, gain: float = 1.0) -> Reward:
    """Return the reward; its options are this function's keyword-only parameters."""
    return ToyRedness(RewardInfo("toy_redness", f"1x{gain}", "Apache-2.0", (0.0, 1.0), pair_scale=gain))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register the four as any package would, and take them out again."""
    objective("toy_hinge", kind="pairwise", source="ours", evidence="ours")(toy_hinge)
    methods.registry.register("toy_middle")(ToyMiddle)
    families.registry.register("toy_words")(ToyWords)
    rewards.registry.register("toy_redness")(load_redness)
    yield
    for registry in (objectives.registry, methods.registry, families.registry, rewards.registry):
        for name in ("toy_hinge", "toy_middle", "toy_words", "toy_redness"):
            registry._things.pop(name, None)
            registry._origins.pop(name, None)


def finite(rows: Sequence[Mapping[str, float]]) -> bool:
    return all(math.isfinite(value) for row in rows for value in row.values())


def test_an_objective_trains(recipe_keys: Keys) -> None:
    recipe = build_recipe(recipe_keys(objective=[{"toy_hinge": {"beta": 100, "target_margin": 0.5}}, "nll"]))
    rows = list(Trainer(recipe).steps())
    assert rows[0]["loss"] == pytest.approx(0.5 + rows[0]["errors/chosen"] / 2, rel=1e-6)
    assert finite(rows) and "rewards/margins" in rows[0]


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_method_trains_with_its_own_default_objective(recipe_keys: Keys, adapter: str) -> None:
    assert isinstance(ToyMiddle(), Method)
    keys = recipe_keys(method={"toy_middle": {"timestep": 300}}, adapter={"kind": adapter}, training__steps=6)
    trainer = Trainer(build_recipe(keys))
    rows = list(trainer.steps())
    assert rows[0]["loss"] == 2.0 and rows[0]["rewards/margins"] == 0.0 and finite(rows)
    assert trainer.moving.digests.keys() == {"reference"}


def test_any_objective_goes_with_a_method_where_names_match(recipe_keys: Keys) -> None:
    rows = list(Trainer(build_recipe(recipe_keys(method="toy_middle", objective="dpo"))).steps())
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-7) and finite(rows)


def test_a_family_trains_resumes_and_samples(recipe_keys: Keys, tmp_path: Path) -> None:
    ToyWords.tiny().pipeline().save_pretrained(tmp_path / "model")
    changes = {"model": {"family": "toy_words", "path": str(tmp_path / "model")}, "data__cache": None}
    trainer = Trainer(build_recipe(recipe_keys(**changes)))
    rows = list(trainer.steps())
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-7) and finite(rows)
    assert trainer.family.schedule.prediction_type == "v_prediction"
    longer = Trainer(build_recipe(recipe_keys(**changes, training__steps=4)))
    assert [row["step"] for row in longer.steps()] == [4]
    family = load_family("toy_words", str(tmp_path / "model"), parts=("vae", "text"))
    family.network = longer.bare
    sampler = Sampler(family, NetworkRole(family, longer.bare), SamplerSettings(2, 3.0, batch_size=2))
    (picture,) = sampler(["a red circle"], [0])
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8


def test_a_reward_scores_and_its_scores_train(recipe_keys: Keys, scored_store: Path, tmp_path: Path) -> None:
    reward = rewards.load("toy_redness", gain=2.0)
    assert isinstance(reward, Reward)
    records = []
    for record in read_store(scored_store):
        pictures = [decode_image(candidate.bytes) for candidate in record.candidates]
        scores = reward.score(pictures, [record.prompt] * len(pictures)).tolist()
        told = [Score("toy_redness", reward.info.version, value) for value in scores]
        scored = (replace(c, scores=(*c.scores, s)) for c, s in zip(record.candidates, told, strict=True))
        records.append(replace(record, candidates=tuple(scored)))
    write_store(tmp_path / "redder", records)
    keys = recipe_keys(data__source=str(tmp_path / "redder"), data__score="toy_redness")
    trainer = Trainer(build_recipe(keys))
    assert finite(list(trainer.steps()))
    for pair in trainer.batches.items:
        values = [s.value for c in records[pair.record_index].candidates for s in c.scores if s.name == "toy_redness"]
        assert values[pair.chosen] == max(values) and values[pair.rejected] == min(values)
