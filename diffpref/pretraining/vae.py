"""Train the bundled AutoencoderKL: 64 x 64 pixels to 16 x 16 x 4 latents.

Run ``python -m diffpref.pretraining.vae --output runs/pretraining/vae``. The measure that counts is the oracle's: of
the reconstructions of true scenes it must find every fact right in at least 97 %, else the VAE caps all that follows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from diffpref.core.files import write_json
from diffpref.core.randomness import Random
from diffpref.pretraining.loop import Loop
from diffpref.pretraining.scenes import scene_batch, to_pictures, to_tensor
from diffpref.shapes.grammar import captions
from diffpref.shapes.oracle import facts

__all__ = ["accepted", "build", "main"]

KL_WEIGHT = 1e-4  # per latent element, against a mean squared error per colour value
BATCH = 16


def build() -> AutoencoderKL:
    """Return the untrained network."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=64,
    )


@torch.no_grad()
def accepted(vae: AutoencoderKL, split: str, num_scenes: int, random: Random) -> float:
    """Return the share of reconstructed true scenes of a split in which the oracle finds every fact right."""
    right = 0
    for start in range(0, num_scenes, 100):
        chosen, pictures = scene_batch(captions(split), min(100, num_scenes - start), random, "check", start)
        images = vae.decode(vae.encode(to_tensor(pictures).to(vae.device)).latent_dist.mode()).sample
        right += sum(all(facts(p, c).values()) for p, c in zip(to_pictures(images), chosen, strict=True))
    return right / num_scenes


def main(output: Path, steps: int = 2500, seed: int = 0, num_scenes: int = 1000, device: str = "cpu") -> None:
    """Train, measure, and write the model folder to ``output/model``.

    Args:
        output: working folder; a run that finds a checkpoint there goes on from it.
        steps: updates of 16 scenes.
        seed: seed of the weights and of every draw.
        num_scenes: scenes of each split that the oracle judges at the end.
        device: torch device.
    """
    random = Random(seed)
    torch.manual_seed(seed)
    vae: Any = build().to(device)
    loop = Loop(output, {"vae": vae}, steps=steps, learning_rate=2e-3, ema_decay=0.995)
    for step in loop:
        _, pictures = scene_batch(captions("seen"), BATCH, random, "scenes", step)
        images = to_tensor(pictures).to(device)
        latents = vae.encode(images).latent_dist
        noise = torch.randn(latents.mean.shape, generator=random.generator("posterior", step)).to(device)
        restored = vae.decode(latents.mean + latents.std * noise).sample
        error = (restored - images).square().mean() + 0.1 * (restored - images).abs().mean()
        divergence = latents.kl().mean() / latents.mean[0].numel()
        loop.update(error + KL_WEIGHT * divergence, error=error, kl=divergence)
    trained: Any = loop.averaged["vae"].eval()
    with torch.no_grad():
        _, pictures = scene_batch(captions("seen"), 500, random, "scale")
        spread = trained.encode(to_tensor(pictures).to(device)).latent_dist.mode().std().item()
    trained.register_to_config(scaling_factor=round(1 / spread, 5), shift_factor=None)
    measured = {
        f"oracle accepts reconstructions, {s}": accepted(trained, s, num_scenes, random)
        for s in ("seen", "unseen", "held_out")
    }
    trained.save_pretrained(output / "model")
    write_json(output / "model" / "measured.json", measured)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
