"""Families on checkpoints that predict v, with zero terminal SNR: read from the config, finite at pure noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diffpref.core.contracts import Conditioning, RoleSpec, Rows
from diffpref.core.randomness import Random
from diffpref.likelihood import DenoisingLikelihood
from diffpref.models import load_family, registry
from diffpref.models.adapters import registry as adapters
from diffpref.models.roles import NetworkRole, build_roles
from diffpref.sampling import Sampler, SamplerSettings, sample_latents

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
CHANGES = {
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


@pytest.fixture(params=["sd", "sdxl", "unet3d", "animatediff_sdxl"])
def family(request: Any, tmp_path: Path) -> Any:
    """A tiny family as loaded from a checkpoint with such a scheduler."""
    made: Any = registry.get(request.param).tiny()
    made.pipeline().save_pretrained(tmp_path)
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **CHANGES}))
    loaded: Any = load_family(request.param, str(tmp_path))
    loaded.num_frames = 3
    return loaded


def shape(family: Any, rows: int) -> tuple[int, ...]:
    return rows, *family.latent_shape(64)


def test_the_last_timestep_is_pure_noise_and_its_errors_are_finite(family: Any) -> None:
    assert family.schedule.prediction_type == "v_prediction" and family.schedule.alphas_cumprod[-1] == 0
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(shape(family, 2), generator=generator) for _ in range(2))
    last = family.sample_timesteps(torch.tensor([0.9999, 0.9999], dtype=torch.float64))
    assert last.tolist() == [999, 999]
    noisy, target = family.add_noise(clean, noise, last), family.target(clean, noise, last)
    assert torch.equal(noisy, noise) and torch.equal(target, -clean)

    how: Any = adapters.get("lora")()
    how.install(family, Random(0))
    told = family.encode_prompt(["a"], 64)
    rows = Rows(
        "denoising",
        {"noisy": noisy, "timesteps": last, "target": target},
        Conditioning.concatenate([told, told]),
        {"chosen": torch.tensor([0]), "rejected": torch.tensor([1])},
    )
    roles = build_roles({"reference": RoleSpec()}, family, family.network, how)
    outputs = {name: role(rows) for name, role in roles.items()}
    for weighting in ("simple", "min_snr", "x0", "eps_equiv"):
        read = DenoisingLikelihood(family.schedule, weighting, unit_dims=family.unit_dims)  # type: ignore[arg-type]
        found = read(("chosen_log_ratio", "policy_rejected_errors"), outputs, rows)
        assert found["chosen_log_ratio"].item() == 0 and found["policy_rejected_errors"].isfinite().all()


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_samples_are_the_stock_pipelines(family: Any, guidance: float) -> None:
    settings = SamplerSettings(num_inference_steps=5, guidance_scale=guidance, batch_size=1, resolution=64)
    ours = Sampler(family, NetworkRole(family, family.network), settings)
    pipeline = family.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        ["a"],
        height=64,
        width=64,
        num_inference_steps=5,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
        **({"num_frames": 3} if family.unit_dims else {}),
    )
    told, without = family.encode_prompt(["a"], 64), family.unconditional(64)
    latents = sample_latents(family, ours.role, ours.initial_latents([3]), told, without, ours.settings)
    wanted = drawn.frames if family.unit_dims else drawn.images
    torch.testing.assert_close(latents, wanted, rtol=1e-5, atol=1e-5)
