"""How well are pictures of the shapes world inverted by the bundled SDXL, by DDIM inversion and by ReNoise?

    python benchmarks/inversion.py --table benchmarks/inversion.md

Latents of rendered scenes with unseen captions are inverted up to the sampler's first level under their caption,
without guidance, and sampled down again in as many steps. The error is the mean squared difference of the latents;
intervals are 95 %, by bootstrap over the pictures, paired. The oracle reads the decoded latents before and after.
ReNoise corrects each step once, and so asks the denoiser twice a step on the way up.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpref.core.contracts import Conditioning
from diffpref.models import registry
from diffpref.models.roles import NetworkRole
from diffpref.sampling import InversionSettings, SamplerSettings, invert, sample_latents
from diffpref.schedules import ddim_path
from diffpref.shapes.grammar import Caption, captions
from diffpref.shapes.oracle import facts
from diffpref.shapes.render import render

STEPS, CORRECTIONS, RESOLUTION, BATCH = (10, 20, 50), {"DDIM": 0, "ReNoise": 1}, 64, 16
BOOTSTRAPS = 10_000


@dataclass(frozen=True)
class Pictures:
    """Captions, their conditioning, and the latents of rendered scenes."""

    captions: list[Caption]
    conditioning: Conditioning
    latents: Tensor

    def read(self, family: Any, latents: Tensor) -> list[dict[str, bool]]:
        """Return what the oracle reads in the decoded latents, of each caption's facts."""
        images = ((family.decode_media(latents) / 2 + 0.5) * 255).round().to(torch.uint8)
        return [facts(i, c) for i, c in zip(images.permute(0, 2, 3, 1).numpy(), self.captions, strict=True)]


def draw(family: Any, count: int) -> Pictures:
    """Return pictures of unseen captions; picture i is the same in every run."""
    chosen = list(captions("unseen"))[:count]
    scenes = np.stack([render(caption, np.random.default_rng(i)) for i, caption in enumerate(chosen)])
    pixels = torch.from_numpy(scenes).permute(0, 3, 1, 2).float() / 127.5 - 1
    told = family.encode_prompt([str(caption) for caption in chosen], RESOLUTION)
    return Pictures(chosen, told, family.encode_media(pixels).mean)


def back_and_forth(family: Any, pictures: Pictures, steps: int, corrections: int) -> Tensor:
    """Return the latents after inversion and sampling."""
    role, schedule = NetworkRole(family, family.network), family.schedule_at(RESOLUTION)
    settings = InversionSettings(steps, landing="exact", renoise_steps=corrections, spacing=None)
    sampler, again = SamplerSettings(num_inference_steps=steps, guidance_scale=1.0), []
    for start in range(0, len(pictures.captions), BATCH):
        part = slice(start, start + BATCH)
        clean, told = pictures.latents[part], pictures.conditioning.take(part)
        top = ddim_path(schedule, steps)[0][:1].expand(len(clean))
        found = invert(role, schedule, clean, top, told, settings)
        again.append(sample_latents(family, role, found.noisy, told, told, sampler))
    return torch.cat(again)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description="invert pictures with the bundled SDXL and sample them again")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--table", help="Markdown file to write")
    given = parser.parse_args()
    family: Any = registry.get("sdxl").load("bundled:shapes-sdxl")
    pictures = draw(family, given.pictures)
    before = pictures.read(family, pictures.latents)
    rows = [
        "| steps | inversion | error | DDIM's error minus this | pictures with less | facts read alike | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for steps in STEPS:
        plain: Tensor | None = None
        for name, corrections in CORRECTIONS.items():
            started = time.perf_counter()
            again = back_and_forth(family, pictures, steps, corrections)
            seconds = time.perf_counter() - started
            error = (again - pictures.latents).square().flatten(1).mean(dim=1)
            after = pictures.read(family, again)
            alike = np.mean([old[key] == new[key] for old, new in zip(before, after, strict=True) for key in old])
            gain = "|" if plain is None else f"{interval(plain - error)} | {(plain > error).float().mean():.0%}"
            plain = error if plain is None else plain
            rows.append(f"| {steps} | {name} | {interval(error)} | {gain} | {alike:.1%} | {seconds:.0f} |")
            print(rows[-1], flush=True)
    if given.table:
        title, _, body = (__doc__ or "").partition("\n")
        command, _, told = body.strip().partition("\n\n")
        text = f"# {title}\n\n```bash\n{command.strip()}\n```\n\n{told.strip()}\n\n{given.pictures} pictures.\n\n"
        Path(given.table).write_text(text + "\n".join(rows) + "\n", encoding="utf-8")


def interval(values: Tensor) -> str:
    """Return the mean and its 95 % bootstrap interval, which may be lopsided: a few pictures have large errors."""
    draws = np.random.default_rng(0).choice(values.numpy(), (BOOTSTRAPS, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{values.mean():.5f} ({low:.5f} to {high:.5f})"


if __name__ == "__main__":
    main()
