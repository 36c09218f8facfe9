"""SDXL's refiner: one text encoder, five numbers, the stock image-to-image pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionXLImg2ImgPipeline
from PIL import Image

from diffpref.core.contracts import Batch, Context
from diffpref.core.randomness import Random
from diffpref.methods import registry as methods
from diffpref.models import load_family, registry
from diffpref.models.adapters import registry as adapters
from diffpref.models.roles import NetworkRole, build_roles

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PROMPTS = ["a red circle", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("refiner")
    registry.get("sdxl").tiny(refiner=True).pipeline().save_pretrained(path)  # type: ignore[call-arg]
    return path


def stock(folder: Path) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_refiner_loads_without_the_first_encoder(folder: Path) -> None:
    family = load_family("sdxl", str(folder))
    assert len(family.texts) == 1
    assert type(family.pipeline()) is type(stock(folder)) is StableDiffusionXLImg2ImgPipeline


def test_conditioning_is_exactly_the_stock_pipelines(folder: Path) -> None:
    family, pipeline = load_family("sdxl", str(folder)), stock(folder)
    ours = family.encode_prompt(PROMPTS, 64).tensors
    embeds, _, pooled, _ = pipeline.encode_prompt(PROMPTS, device="cpu", do_classifier_free_guidance=False)
    assert torch.equal(ours["prompt_embeds"], embeds) and torch.equal(ours["pooled_prompt_embeds"], pooled)
    sizes = ((64, 64), (0, 0), (64, 64), 6.0, 2.5, (64, 64), (0, 0), (64, 64))
    theirs, _ = pipeline._get_add_time_ids(*sizes, dtype=torch.float32, text_encoder_projection_dim=16)
    assert torch.equal(ours["time_ids"], theirs.repeat(2, 1))
    assert ours["time_ids"].tolist() == [[64, 64, 0, 0, 6]] * 2


def test_a_prediction_is_the_networks_in_the_stock_pipeline(folder: Path) -> None:
    family, pipeline = load_family("sdxl", str(folder)), stock(folder)
    asked: list[Any] = []
    forward = pipeline.unet.forward

    def spy(*args: Any, **kwargs: Any) -> Any:
        asked.append((args[0], args[1], forward(*args, **kwargs)[0]))
        return asked[-1][2].unsqueeze(0)

    pipeline.unet.forward = spy
    image = Image.fromarray(np.full((64, 64, 3), 90, np.uint8))
    generator = torch.Generator().manual_seed(0)
    pipeline(
        PROMPTS[0], image=image, num_inference_steps=10, guidance_scale=0.0, generator=generator, output_type="latent"
    )
    told = family.encode_prompt(PROMPTS[:1], 64)
    assert asked
    for noisy, timestep, prediction in asked:
        with torch.no_grad():
            ours = family.forward(family.network, {"noisy": noisy, "timesteps": timestep.view(1)}, told)
        torch.testing.assert_close(ours, prediction, rtol=0, atol=1e-6)


def test_a_trained_refiner_goes_back_to_the_stock_pipeline(folder: Path, tmp_path: Path) -> None:
    family = load_family("sdxl", str(folder))
    lora = adapters.get("lora")(rank=2, alpha=3.0)
    for parameter in lora.install(family, Random(0))["adapter"]:
        parameter.data += 0.05
    told = family.encode_prompt(PROMPTS, 64)
    media = {name: torch.randn(2, 4, 8, 8) for name in ("chosen", "rejected")}
    empty = family.encode_prompt([""], 64)
    batch = Batch((("a", 0), ("b", 0)), media, {"": told}, {}, empty)
    method = methods.get("diffusion_dpo")(timestep_rule="refiner")  # type: ignore[call-arg]
    rows = method.prepare(batch, Context(family, {}, Random(0)))
    assert rows.inputs["timesteps"].max() < 200
    ours = build_roles({}, family, family.network, lora)["policy"](rows)["prediction"]
    lora.save(family, family.network, tmp_path)
    pipeline = stock(folder)
    pipeline.load_lora_weights(tmp_path)
    theirs = NetworkRole(family, pipeline.unet)(rows)["prediction"]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)
