"""LoRA on any mixture of layers loads whole in plain diffusers.

diffusers reads its older key names (``to_q.lora.down``) of attention layers only where no other layer is adapted;
beside others it drops them without a word. So the saved keys are PEFT's own.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffpref.core.randomness import Random
from diffpref.models import registry
from diffpref.models.adapters import registry as adapters

ATTENTION, OTHERS = ["to_q", "to_k", "to_v", "to_out.0"], ["proj_in", "ff.net.0.proj", "time_emb_proj", "conv1"]


@pytest.mark.parametrize("targets", [ATTENTION, OTHERS, ATTENTION + OTHERS], ids=["attention", "others", "both"])
@pytest.mark.parametrize("alpha", [None, 16.0])
def test_plain_diffusers_reproduces_the_denoiser(tmp_path: Path, targets: list[str], alpha: float | None) -> None:
    trained, fresh = registry.get("sdxl").tiny(), registry.get("sdxl").tiny()
    adapter = adapters.get("lora")(rank=4, alpha=alpha, targets=targets)
    adapter.install(trained, Random(0))
    for name, parameter in trained.network.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    adapter.save(trained, trained.network, tmp_path)
    generator = torch.Generator().manual_seed(1)
    inputs = {"noisy": torch.randn(2, 4, 8, 8, generator=generator), "timesteps": torch.tensor([5, 700])}
    told = trained.encode_prompt(["a", "b"], 64)
    before = fresh.forward(fresh.network, inputs, told)
    pipeline = fresh.pipeline()
    pipeline.load_lora_weights(tmp_path)
    expected, loaded = trained.forward(trained.network, inputs, told), fresh.forward(pipeline.unet, inputs, told)
    assert (expected - before).abs().max() > 1e-3
    assert (expected - loaded).abs().max() <= 1e-6
