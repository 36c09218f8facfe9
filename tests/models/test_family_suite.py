"""What every family promises: it is the stock pipeline, part by part. A new family is tested without a line here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from diffpref.core.contracts import Conditioning
from diffpref.core.errors import ConfigError
from diffpref.models import load_family, registry
from diffpref.models.family import DenoiserFamily
from diffpref.schedules import EdmSchedule

MAKERS: dict[str, Callable[[], DenoiserFamily]] = {
    name: registry.get(name).tiny for name in registry if registry.get(name).likelihood == "denoising"
}
MAKERS["sd3, no T5"] = lambda: registry.get("sd3").tiny(t5=False)  # type: ignore[call-arg]
MAKERS["sd, v_prediction"] = lambda: registry.get("sd").tiny(prediction_type="v_prediction")  # type: ignore[call-arg]
PROMPTS = ["a red circle", "", "two blue squares above a very long caption that will not fit"]
RESOLUTION = 64

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module", params=MAKERS)
def case(request: Any, tmp_path_factory: Any) -> Iterator[tuple[DenoiserFamily, Path]]:
    """A tiny family and the folder of its pipeline."""
    family = MAKERS[request.param]()
    folder = tmp_path_factory.mktemp("family")
    family.pipeline().save_pretrained(folder)
    yield family, folder


def stock(folder: Path) -> Any:
    absent, index = {}, (folder / "model_index.json").read_text()  # diffusers wants to be told
    if "SD3Transformer2DModel" in index and "T5" not in index:
        absent = {"text_encoder_3": None, "tokenizer_3": None}
    elif "AnimateDiffSDXLPipeline" in index:
        absent = {"motion_adapter": None}
    pipeline = DiffusionPipeline.from_pretrained(folder, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock_embeddings(pipeline: Any, prompts: list[str], *, guided: bool = False) -> tuple[torch.Tensor, ...]:
    """What encode_prompt of a stock pipeline returns: (prompt, negative) embeddings, and SDXL's two pooled ones."""
    clips = "num_videos_per_prompt" in signature(pipeline.encode_prompt).parameters
    count = "num_videos_per_prompt" if clips else "num_images_per_prompt"
    arguments = {"device": "cpu", count: 1, "do_classifier_free_guidance": guided}
    if hasattr(pipeline, "tokenizer_3"):
        return pipeline.encode_prompt(prompts, None, None, **arguments)
    return pipeline.encode_prompt(prompts, **arguments)


def frames(family: DenoiserFamily) -> tuple[int, ...]:
    """The dimensions that a clip has before those of a picture."""
    return (3,) if family.unit_dims else ()


def media(family: DenoiserFamily, rows: int = 2) -> torch.Tensor:
    """Pictures, or clips of three frames."""
    shape = (rows, *frames(family), 3, 64, 64)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def as_media(family: DenoiserFamily, encoded: torch.Tensor) -> torch.Tensor:
    """What the VAE made of a list of pictures, in the order in which the family keeps it."""
    return encoded.unflatten(0, (-1, *frames(family))).movedim(2, 1) if frames(family) else encoded


def some_timesteps(family: DenoiserFamily) -> torch.Tensor:
    if isinstance(family.schedule, EdmSchedule):
        return torch.tensor([700.0, 1.0, 0.002])
    return torch.tensor([1.0, 0.5, 0.001] if family.schedule.prediction_type == "flow" else [999, 500, 0])


def inputs(family: DenoiserFamily, rows: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn((rows, *family.latent_shape(RESOLUTION)), generator=generator)
    return {"noisy": noisy, "timesteps": some_timesteps(family)[:rows]}


def test_a_saved_pipeline_loads_again_part_by_part(case: Any) -> None:
    family, folder = case
    loaded = load_family(family.name, str(folder))
    for part in ("network", "vae"):
        ours, again = getattr(family, part).state_dict(), getattr(loaded, part).state_dict()
        assert ours.keys() == again.keys() and all(torch.equal(ours[k], again[k]) for k in ours)
    for module in (loaded.network, loaded.vae, *loaded.encoders):
        assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert loaded.schedule.prediction_type == family.schedule.prediction_type
    times = some_timesteps(family)
    assert torch.equal(loaded.schedule.alpha(times), family.schedule.alpha(times))


def test_the_pipeline_is_the_stock_class_and_keeps_the_scheduler(case: Any) -> None:
    family, folder = case
    pipeline, again = stock(folder), load_family(family.name, str(folder)).pipeline()
    assert type(pipeline) is type(again) is family.pipeline_class
    assert type(pipeline.scheduler) is type(again.scheduler)
    mine, theirs = dict(again.scheduler.config), dict(pipeline.scheduler.config)
    assert {k: v for k, v in mine.items() if k[0] != "_"} == {k: v for k, v in theirs.items() if k[0] != "_"}


def test_a_denoiser_alone_is_the_normal_case(case: Any) -> None:
    family, folder = case
    alone = load_family(family.name, str(folder), parts=("network",))
    assert alone.vae is None and alone.texts == () and alone.network is not None
    with pytest.raises(ConfigError, match="'text' is not loaded"):
        alone.encode_prompt(["x"], RESOLUTION)
    with pytest.raises(ConfigError, match="'vae' is not loaded"):
        alone.decode_media(torch.zeros(1, 4, *frames(family), 8, 8))


def test_the_native_resolution_is_known_without_the_denoiser(case: Any) -> None:
    family, folder = case
    encoders = load_family(family.name, str(folder), parts=("vae", "text"))
    assert encoders.network is None
    assert encoders.native_resolution() == family.native_resolution() == RESOLUTION
    assert family.latent_shape(RESOLUTION) == (4, *frames(family), 8, 8)


def test_conditioning_is_exactly_the_stock_pipelines(case: Any) -> None:
    family, folder = case
    if family.takes_opening:
        pytest.skip("is told pictures; see test_svd.py")
    ours = family.encode_prompt(PROMPTS, RESOLUTION).tensors
    theirs = stock_embeddings(stock(folder), PROMPTS)
    # T5, when it was just made, runs another attention kernel than when it was loaded
    tolerance = 2e-5 if len(family.texts) == 3 else 0.0
    torch.testing.assert_close(ours["prompt_embeds"], theirs[0], rtol=0, atol=tolerance)
    if "pooled_prompt_embeds" in ours:
        assert torch.equal(ours["pooled_prompt_embeds"], theirs[2])
    if "time_ids" in ours:
        assert ours["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]] * 3
    assert all(tensor.dtype == torch.float32 for tensor in ours.values())


@pytest.mark.parametrize("zeros", [False, True])
def test_the_unconditional_row_is_what_the_stock_pipeline_guides_away_from(
    case: Any, zeros: bool, tmp_path: Path
) -> None:
    family, _ = case
    if family.takes_opening:
        pytest.skip("is told pictures; see test_svd.py")
    pipeline = family.pipeline()
    if "force_zeros_for_empty_prompt" not in pipeline.config:  # this pipeline always encodes the empty prompt
        _, negative, *pooled = stock_embeddings(pipeline, PROMPTS[:1], guided=True)
        ours = family.unconditional(RESOLUTION).tensors
        assert torch.equal(ours["prompt_embeds"], negative)
        assert not pooled or torch.equal(ours["pooled_prompt_embeds"], pooled[1])
        return
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    pipeline.save_pretrained(tmp_path)
    loaded = load_family(family.name, str(tmp_path))
    ours = loaded.unconditional(RESOLUTION).tensors
    _, negative, _, negative_pooled = stock_embeddings(stock(tmp_path), PROMPTS[:1], guided=True)
    assert torch.equal(ours["prompt_embeds"], negative) and torch.equal(ours["pooled_prompt_embeds"], negative_pooled)
    assert bool((ours["prompt_embeds"] == 0).all()) == zeros
    assert ours["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]]
    assert loaded.pipeline().config.force_zeros_for_empty_prompt is zeros


def test_a_prediction_is_the_networks_in_the_stock_pipeline(case: Any) -> None:
    family, folder = case
    if family.takes_opening:
        pytest.skip("is told pictures; see test_svd.py")
    asked: list[dict[str, Any]] = []
    pipeline = stock(folder)
    denoiser = getattr(pipeline, family.network_part)
    forward, flow = denoiser.forward, family.schedule.prediction_type == "flow"

    def spy(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        noisy, timestep = (kwargs["hidden_states"], kwargs["timestep"] / 1000) if flow else args[:2]
        asked.append({"noisy": noisy, "timestep": timestep, "prediction": result[0]})
        return result

    denoiser.forward = spy
    length = {"num_frames": 3} if frames(family) else {}
    pipeline(PROMPTS[0], height=64, width=64, num_inference_steps=3, guidance_scale=0.0, output_type="latent", **length)
    conditioning = family.encode_prompt(PROMPTS[:1], RESOLUTION)
    assert len(asked) == 3
    for call in asked:
        told = {"noisy": call["noisy"], "timesteps": call["timestep"].view(1)}
        with torch.no_grad():
            ours = family.forward(family.network, told, conditioning)
        torch.testing.assert_close(ours, call["prediction"], rtol=0, atol=1e-6)


def test_captions_sizes_and_timesteps_reach_the_prediction(case: Any) -> None:
    family, _ = case
    conditioning = family.encode_prompt(PROMPTS, RESOLUTION)
    with torch.no_grad():
        base = family.forward(family.network, inputs(family), conditioning)
        changed = {**inputs(family), "timesteps": some_timesteps(family).flip(0)}
        assert (family.forward(family.network, changed, conditioning) != base).any()
        for name, tensor in conditioning.tensors.items():
            other = Conditioning({**conditioning.tensors, name: tensor + 1})
            assert (family.forward(family.network, inputs(family), other) != base).any(), name


def test_the_vaes_scaling_is_read_from_its_config(case: Any, tmp_path: Path) -> None:
    family, folder = case
    images = media(family)
    posterior = family.vae.encode(images.flatten(0, -4)).latent_dist
    mean, std = as_media(family, posterior.mean), as_media(family, posterior.std)
    plain = family.encode_media(images)
    shift = family.vae.config.get("shift_factor") or 0.0
    torch.testing.assert_close(plain.mean, (mean - shift) * family.vae.config.scaling_factor)
    torch.testing.assert_close(plain.std, std * family.vae.config.scaling_factor)
    stock(folder).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    (tmp_path / "vae" / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.5, "shift_factor": 0.25}))
    other = load_family(family.name, str(tmp_path), parts=("vae",))
    latents = other.encode_media(images)
    shift = 0.25 if "shift_factor" in family.vae.config else 0.0  # SVD's VAE knows none
    torch.testing.assert_close(latents.mean, (mean - shift) * 0.5)
    torch.testing.assert_close(latents.std, std * 0.5)
    length = {"num_frames": 3} if family.name == "svd" else {}
    decoded = family.vae.decode(posterior.mean, **length).sample.clamp(-1, 1).view_as(images)
    torch.testing.assert_close(other.decode_media(latents.mean), decoded, rtol=0, atol=1e-4)


def test_pictures_go_through_the_vae_in_parts_that_fit_the_memory(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    family, _ = case
    images = media(family, 5)
    whole = family.encode_media(images)
    decoded = family.decode_media(whole.mean)
    monkeypatch.setattr("diffpref.models.family.PIXELS_AT_ONCE", 2 * 64 * 64)
    calls: list[int] = []
    hook = family.vae.encoder.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    parts = family.encode_media(images)
    hook.remove()
    assert calls == ([2] * 7 + [1] if frames(family) else [2, 2, 1])
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(family.decode_media(whole.mean), decoded, rtol=0, atol=1e-5)


def test_timesteps_cover_the_chain_evenly(case: Any) -> None:
    family, _ = case
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    drawn = family.sample_timesteps(u)
    if isinstance(family.schedule, EdmSchedule):
        assert torch.equal(drawn, family.schedule.draw(u)) and bool((drawn.diff() > 0).all())
        return
    if family.schedule.prediction_type == "flow":
        assert torch.allclose(drawn, family.schedule.shifted(1 - u)) and bool((drawn.diff() < 0).all())
        return
    assert drawn.tolist() == list(range(1000))
    assert family.sample_timesteps(torch.tensor([0.0, 1 - 1e-17], dtype=torch.float64)).tolist() == [0, 999]


def test_the_target_is_the_schedulers_own(case: Any) -> None:
    family, folder = case
    clean = inputs(family)["noisy"]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    scheduler = stock(folder).scheduler
    if isinstance(family.schedule, EdmSchedule):
        scheduler.set_timesteps(3)
        times, levels = scheduler.timesteps, scheduler.sigmas[:3]
        noisy = scheduler.add_noise(clean, noise, times)
        ours = family.schedule.unscaled(family.add_noise(clean, noise, levels), levels)
        torch.testing.assert_close(ours, noisy, rtol=1e-5, atol=1e-5)
        for row, target in enumerate(family.target(clean, noise, levels)):
            found = scheduler.step(target, times[row], noisy[row]).pred_original_sample
            torch.testing.assert_close(found, clean[row], rtol=0, atol=1e-4)  # of samples that reach thousands
        return
    if family.schedule.prediction_type == "flow":
        rows = torch.tensor([0, 250, 999])  # of its table
        levels, level = scheduler.sigmas[rows], scheduler.sigmas[rows].view(-1, 1, 1, 1)
        noisy = scheduler.scale_noise(clean, scheduler.timesteps[rows], noise)
        torch.testing.assert_close(family.add_noise(clean, noise, levels), noisy, rtol=0, atol=1e-5)
        clean_again = noisy - level * family.target(clean, noise, levels)
        torch.testing.assert_close(clean_again, clean, rtol=0, atol=1e-5)
        return
    timesteps = torch.tensor([999, 500, 1])
    torch.testing.assert_close(
        family.add_noise(clean, noise, timesteps), scheduler.add_noise(clean, noise, timesteps), rtol=0, atol=1e-5
    )
    wanted = noise
    if family.schedule.prediction_type == "v_prediction":
        wanted = scheduler.get_velocity(clean, noise, timesteps)
    torch.testing.assert_close(family.target(clean, noise, timesteps), wanted, rtol=0, atol=1e-5)


def test_half_precision_networks_take_float32_rows_and_keep_the_vae_in_float32(case: Any) -> None:
    family, folder = case
    half = load_family(family.name, str(folder), precision="bf16")
    assert half.network.dtype == torch.bfloat16 and half.vae.dtype == torch.float32
    conditioning = half.encode_prompt(PROMPTS, RESOLUTION)
    assert {tensor.dtype for tensor in conditioning.tensors.values()} == {torch.float32}
    with torch.no_grad():
        rough = half.forward(half.network, inputs(family), conditioning).float()
        exact = family.forward(family.network, inputs(family), family.encode_prompt(PROMPTS, RESOLUTION))
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()


def test_blocks_cover_the_network(case: Any) -> None:
    family, _ = case
    blocks = family.blocks(family.network)
    assert len(blocks) == (2 if family.network_part == "transformer" else 5)
    inside = sum(p.numel() for block in blocks for p in block.parameters())
    assert inside > 0.5 * sum(p.numel() for p in family.network.parameters())


def test_parts_can_be_dropped(case: Any) -> None:
    family, folder = case
    loaded = load_family(family.name, str(folder))
    loaded.drop("vae", "text")
    assert loaded.vae is None and loaded.encoders == () and loaded.network is not None
