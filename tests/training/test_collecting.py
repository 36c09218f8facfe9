"""Methods that make part of their data while they train: what they are handed, what they may add, and resuming."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.config import build_recipe
from diffpref.core.errors import ConfigError, DataError
from diffpref.data import encode_png
from diffpref.models import registry as families
from diffpref.sampling import SamplerSettings, sample_latents
from diffpref.training import Trainer
from diffpref.training.checkpoints import newest_checkpoint
from diffpref.training.log import read_metrics
from diffpref.training.plan import make_plan

Keys = Callable[..., dict[str, Any]]
SEPPO = {"snapshot_every": 1, "num_inference_steps": 2, "guidance_scale": 2.0}
JPEG = {"jpeg": {"output": "incompressibility"}}
NFT = {"rewards": [JPEG], "group_size": 2, "num_inference_steps": 3}


@pytest.fixture(scope="session")
def tiny_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a StableDiffusion3Pipeline with random weights at toy size."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sd3"
    families.get("sd3").tiny().pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def nft_keys(recipe_keys: Keys, tiny_sd3: Path, tmp_path: Path) -> Keys:
    """Make the keys of a run of ``diffusion_nft`` on prompts."""

    def make(nft: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        keys = {
            "model": {"family": "sd3", "path": str(tiny_sd3)},
            "data": {"source": "shapes:seen:12", "cache": str(tmp_path / "cache")},
            "method": {"diffusion_nft": {**NFT, **(nft or {})}},
            "training": {"steps": 3, "batch_size": 4},
            "optim": {"learning_rate": 1e-3},
        }
        return recipe_keys(**{**keys, **changes})

    return make


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].detach().double().reshape(-1) for name in sorted(tensors)]).clone()


def policy(trainer: Trainer) -> Tensor:
    return flat(trainer.plan.adapter.state(trainer.bare))


def exact(trainer: Trainer) -> list[dict[str, Any]]:
    return [
        {k: v.hex() if isinstance(v, float) else v for k, v in row.items() if not k.startswith("perf/")}
        for row in read_metrics(trainer.output / "metrics.jsonl")
    ]


# ---------------------------------------------------------------- seppo


def test_seppo_trains_on_winners_alone_against_samples_of_a_snapshot(recipe_keys: Keys) -> None:
    keys = recipe_keys(method={"seppo": SEPPO}, training__steps=5, optim={"learning_rate": 1e-3})
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    assert trainer.plan.taken == ("chosen",) and trainer.plan.groups == ("chosen", "rejected")
    earlier, drawn, rows = [policy(trainer)], [], []
    for row in trainer.steps():
        rows.append(row)
        earlier.append(policy(trainer))
        reference = flat(trainer.moving.placed["reference"].weights())
        drawn.append(next(k for k, then in enumerate(earlier) if torch.equal(then, reference)))
    assert len(set(drawn)) >= 2 and all(index <= update for update, index in enumerate(drawn, 1))
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6) and rows[0]["flip_rate"] == 0.0
    assert all(0 <= row["flip_rate"] <= 1 and row["grad_norm"] > 0 for row in rows)
    assert [row["collect/forwards"] for row in rows] == [2 * 2 * 2.0] * 5  # records, steps, guided
    assert len(trainer.moving.movers["reference"].state()) > 3 * len(trainer.moving.placed["reference"].weights())


def test_the_loser_is_what_the_sampler_draws_with_the_snapshot_from_keyed_noise(recipe_keys: Keys) -> None:
    trainer = Trainer(build_recipe(recipe_keys(method={"seppo": SEPPO}, optim={"learning_rate": 1e-2})))
    steps = trainer.steps()
    next(steps)
    feed, context = trainer.updater.feed, trainer.updater.context
    feed.begin(1, context)
    batch = feed.batch(feed.items(1))
    noise = context.random.normal("on-policy latents", batch.keys, batch.media["chosen"].shape[1:])
    told = batch.conditioning[""]
    settings = SamplerSettings(2, 2.0)
    empty = batch.empty.zeros(keep=trainer.family.size_tensors) if trainer.family.zero_unconditional else batch.empty
    with torch.no_grad():
        expected = sample_latents(trainer.family, context.roles["reference"], noise, told, empty, settings)
    assert torch.equal(batch.media["rejected"], expected)
    steps.close()


def test_the_loser_may_go_through_pixels_as_winners_do(recipe_keys: Keys, tmp_path: Path) -> None:
    drawn = {}
    for reencode in (False, True):
        method = {"seppo": {**SEPPO, "reencode": reencode}}
        trainer = Trainer(build_recipe(recipe_keys(method=method, output=str(tmp_path / f"reencode-{reencode}"))))
        trainer.setup()
        feed, context = trainer.updater.feed, trainer.updater.context
        feed.begin(0, context)
        drawn[reencode] = feed.batch(feed.items(0))
        trainer.folder.release()
    assert trainer.family.vae is not None
    before, after = (batch.media["rejected"] for batch in (drawn[False], drawn[True]))
    pixels = trainer.family.decode_media(before).clamp(-1, 1)
    rounded = ((pixels / 2 + 0.5) * 255).round() / 127.5 - 1
    posterior = trainer.family.encode_media(rounded)
    noise = context.random.normal("on-policy posterior", drawn[True].keys, before.shape[1:])
    torch.testing.assert_close(after, posterior.mean + posterior.std * noise, rtol=1e-4, atol=1e-4)


def test_without_an_interval_seppo_says_so_before_anything_is_loaded(recipe_keys: Keys) -> None:
    line = r"^method\.seppo\.snapshot_every: must be given: after how many updates .* \{snapshot_every: 30\}\}'$"
    with pytest.raises(ConfigError, match=line):
        make_plan(build_recipe(recipe_keys(method="seppo")))


def test_seppo_needs_no_losers(recipe_keys: Keys, tmp_path: Path) -> None:
    """Pictures with captions will do."""
    for number in range(4):
        pixels = torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{number}.png").write_bytes(encode_png(pixels.numpy()))
        (tmp_path / "pictures" / f"{number}.txt").write_text(f"picture {number}")
    data = {"source": str(tmp_path / "pictures"), "cache": str(tmp_path / "cache")}
    (row,) = Trainer(build_recipe(recipe_keys(method={"seppo": SEPPO}, data=data, training__steps=1))).steps()
    assert row["loss"] == pytest.approx(math.log(2), abs=1e-6) and row["grad_norm"] > 0


def test_a_bank_refuses_a_reference_that_moves(recipe_keys: Keys) -> None:
    with pytest.raises(ConfigError, match="'reference' moves while the run trains") as caught:
        make_plan(build_recipe(recipe_keys(method={"seppo": SEPPO}, bank={"slots": 2})))
    assert "bank.slots: method 'seppo' draws new samples while it trains" in str(caught.value)


# ---------------------------------------------------------------- diffusion_nft


def test_nft_makes_all_its_samples_and_learns_from_their_scores(nft_keys: Keys) -> None:
    trainer = Trainer(build_recipe(nft_keys()))
    trainer.setup()
    before = policy(trainer)
    assert (trainer.plan.view, trainer.plan.taken, trainer.plan.groups) == ("prompts", (), ("",))
    rows = list(trainer.steps())
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
    assert not torch.equal(policy(trainer), before)
    assert [row["collect/forwards"] for row in rows] == [4 * 3.0] * 3
    assert all(0 < row["collect/jpeg"] < 50 for row in rows)


def test_advantages_compare_the_samples_of_a_prompt_and_rows_take_its_timesteps(nft_keys: Keys) -> None:
    trainer = Trainer(build_recipe(nft_keys(nft={"group_size": 4}, training={"steps": 1, "batch_size": 8})))
    trainer.setup()
    feed, context = trainer.updater.feed, trainer.updater.context
    feed.begin(0, context)
    batch = feed.batch(feed.items(0))
    assert len({record for record, _ in batch.keys}) == 2 and len(set(batch.keys)) == 8
    assert len({tuple(sample.flatten().tolist()) for sample in batch.media[""]}) == 8
    scores = batch.columns["scores"][:, 0].double()
    for group in (slice(0, 4), slice(4, 8)):
        expected = (scores[group] - scores[group].mean()) / (scores.std(correction=0) + 1e-4)
        torch.testing.assert_close(batch.columns["advantage"][group].double(), expected, rtol=1e-5, atol=1e-6)
    rows = trainer.plan.method.prepare(batch, context)
    assert len(rows.inputs["noisy"]) == 16 and rows.columns["advantage"].shape == (16,)  # int(0.99 * 3) each
    levels = set(trainer.family.schedule.grid(3).float().tolist())
    times = rows.inputs["timesteps"].view(8, 2)
    assert set(times.flatten().tolist()) <= levels and bool((times[:, 0] != times[:, 1]).all())
    assert rows.depends_on == {"behaviour"}
    trainer.folder.release()


def test_what_nft_misses_is_told_before_anything_is_loaded(nft_keys: Keys, recipe_keys: Keys) -> None:
    with pytest.raises(ConfigError, match=r"^method\.diffusion_nft\.rewards: must name at least one reward"):
        make_plan(build_recipe(nft_keys(nft={"rewards": []})))
    with pytest.raises(ConfigError, match=r"^method\.diffusion_nft\.rewards\[0\]: unknown reward 'oracel'; did you"):
        make_plan(build_recipe(nft_keys(nft={"rewards": ["oracel"]})))
    with pytest.raises(
        ConfigError, match=r"^method\.diffusion_nft\.group_size: 3 samples of each prompt do not divide the 4 records"
    ):
        list(Trainer(build_recipe(nft_keys(nft={"group_size": 3}))).steps())
    with pytest.raises(ConfigError, match=r"^method\.diffusion_nft\.passes: 2 passes .* do not divide collect_every 3"):
        list(Trainer(build_recipe(nft_keys(nft={"passes": 2, "collect_every": 3}))).steps())
    with pytest.raises(DataError, match="12 prompts are fewer than the 16 of one update"):
        list(Trainer(build_recipe(nft_keys(training={"steps": 1, "batch_size": 32}))).steps())
    chain = recipe_keys(method={"diffusion_nft": NFT}, data__source="shapes:seen:12", data__score=None)
    with pytest.raises(ConfigError, match="'diffusion_nft' regresses velocities, and this model is a chain"):
        list(Trainer(build_recipe(chain)).steps())


# ---------------------------------------------------------------- going on


CASES = {
    "one collection an update": {},
    "two updates, one pass": {"collect_every": 2},
    "four updates, two passes": {"collect_every": 4, "passes": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_on_bit_by_bit_within_a_collection(nft_keys: Keys, tmp_path: Path, case: str) -> None:
    shape = {"steps": 4, "batch_size": 2, "checkpoint_every": 1, "keep": 9}
    keys = nft_keys(nft=CASES[case], training=shape)
    straight = Trainer(build_recipe({**keys, "output": str(tmp_path / "straight")}))
    rows = list(straight.steps())
    every = CASES[case].get("collect_every", 1)
    assert [step for step, row in enumerate(rows) if "collect/forwards" in row] == list(range(0, 4, every))
    broken = build_recipe({**keys, "output": str(tmp_path / "broken")})
    for metrics in Trainer(broken).steps():
        if metrics["step"] == 3:
            break
    found = newest_checkpoint(tmp_path / "broken")
    assert found is not None and found.step == 3 and ("collected" in found) == (3 % every != 0)
    resumed = Trainer(broken)
    resumed.fit()
    assert exact(resumed) == exact(straight)
    assert torch.equal(policy(resumed), policy(straight))


def test_passes_show_the_same_samples_under_other_noise(nft_keys: Keys) -> None:
    keys = nft_keys(nft={"collect_every": 4, "passes": 2}, training={"steps": 4, "batch_size": 2})
    trainer = Trainer(build_recipe(keys))
    trainer.setup()
    feed, context = trainer.updater.feed, trainer.updater.context
    feed.begin(0, context)
    shown = [feed.batch(feed.items(step)) for step in range(4)]
    for first, second in ((0, 2), (1, 3)):
        assert torch.equal(shown[first].media[""], shown[second].media[""])
        assert not set(shown[first].keys) & set(shown[second].keys)
        rows = [trainer.plan.method.prepare(shown[k], context).inputs["target"] for k in (first, second)]
        assert not torch.equal(*rows)
    assert not torch.equal(shown[0].media[""], shown[1].media[""])
    trainer.folder.release()


def test_it_makes_no_difference_how_an_update_is_shared_out(nft_keys: Keys, tmp_path: Path) -> None:
    found = []
    for size, accumulation, replay in ((4, 1, "auto"), (2, 2, "auto"), (1, 4, "always")):
        shape = {"steps": 2, "batch_size": size, "accumulation": accumulation, "replay": replay}
        keys = nft_keys(training=shape, output=str(tmp_path / f"{size}"))
        trainer = Trainer(build_recipe(keys))
        found.append([row["loss"] for row in trainer.steps()])
    assert found[1] == pytest.approx(found[0], rel=1e-4) and found[2] == pytest.approx(found[0], rel=1e-4)
