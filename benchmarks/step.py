"""Our training step against that of a plain diffusers example, on CPU: ``python benchmarks/step.py``.

Same pictures, captions, weights, adapter, loss (Diffusion-DPO) and optimiser; the steps take turns in one process on
one thread, and CPU time is counted, so that other work on the machine hardly matters.

- ``example``: as diffusers' ``train_diffusion_dpo_sdxl.py`` does it: VAE and both text encoders in every step, one
  forward for all images of the pairs, reference by PEFT's ``disable_adapters`` and ``enable_adapters``. Pixels and
  token ids lie in memory, so it reads no data and decodes no image.
- ``example, cached``: the same, without VAE and text encoders in the step.
- ``diffpref``: `diffpref.Trainer` as users run it: reads its cache, draws by key, guards, writes ``metrics.jsonl``.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, mse_loss

from diffpref.config import build_recipe
from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.core.randomness import Random
from diffpref.data import write_store
from diffpref.models import DenoiserFamily, load_family
from diffpref.models.adapters.lora import Lora
from diffpref.models.families.sdxl import StableDiffusionXL
from diffpref.training import Trainer

BETA, RANK, RATE = 5000.0, 8, 1e-5
PROMPTS = ("a red circle", "a blue square", "a green star", "two shapes")


class Example:
    """The step of diffusers' example.

    Args:
        family: all parts of an SDXL; a LoRA is put into its denoiser.
        pixels: (2, N, 3, H, W) in [-1, 1], the chosen and the rejected images.
        prompts: N captions.
        batch_size: pairs in a step.
        cached: encode once, here, instead of in every step.
    """

    def __init__(
        self, family: DenoiserFamily, pixels: Tensor, prompts: list[str], batch_size: int, cached: bool = False
    ) -> None:
        self.trained = Lora(rank=RANK).install(family, Random(0))["adapter"]
        self.vae: Any = family.vae
        self.unet, self.scheduler = family.network, family.scheduler()
        self.encoders, self.ids = [text.model for text in family.texts], [t.tokens(prompts) for t in family.texts]
        self.pixels, self.batch_size, self.position = pixels, batch_size, 0
        self.optimizer = torch.optim.AdamW(self.trained, lr=RATE)
        self.cache = [self.encode(torch.tensor([i])) for i in range(len(prompts))] if cached else None

    def encode(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the latents (2B, C, h, w) and the text embeddings (2B, T, D) and (2B, P) of the given pairs."""
        with torch.no_grad():
            posteriors = [self.vae.encode(part).latent_dist for part in self.pixels[:, chosen].flatten(0, 1).split(8)]
            latents = torch.cat([posterior.sample() for posterior in posteriors]) * self.vae.config.scaling_factor
            outputs = [
                encoder(ids[chosen], output_hidden_states=True)
                for encoder, ids in zip(self.encoders, self.ids, strict=True)
            ]
            embeds = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
            return latents, embeds.repeat(2, 1, 1), outputs[-1][0].repeat(2, 1)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next batch, encoded."""
        chosen = (torch.arange(self.batch_size) + self.position) % self.pixels.shape[1]
        self.position += self.batch_size
        if self.cache is None:
            return self.encode(chosen)
        latents, embeds, pooled = zip(*(self.cache[i] for i in chosen.tolist()), strict=True)
        return tuple(torch.stack(part, dim=1).flatten(0, 1) for part in (latents, embeds, pooled))  # type: ignore[return-value]

    def loss(self, latents: Tensor, embeds: Tensor, pooled: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the loss of 2B rows, the chosen first."""
        side = float(self.pixels.shape[-1])
        time_ids = torch.tensor([[side, side, 0.0, 0.0, side, side]]).repeat(len(latents), 1)
        added = {"text_embeds": pooled, "time_ids": time_ids}
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        prediction = self.unet(noisy, timesteps, embeds, added_cond_kwargs=added).sample
        errors = mse_loss(prediction, noise, reduction="none").mean(dim=(1, 2, 3))
        self.unet.disable_adapters()
        with torch.no_grad():
            prediction = self.unet(noisy, timesteps, embeds, added_cond_kwargs=added).sample
            reference = mse_loss(prediction, noise, reduction="none").mean(dim=(1, 2, 3))
        self.unet.enable_adapters()
        (chosen, rejected), (chosen_reference, rejected_reference) = errors.chunk(2), reference.chunk(2)
        inside = -0.5 * BETA * ((chosen - rejected) - (chosen_reference - rejected_reference))
        return -logsigmoid(inside).mean()

    def __call__(self) -> float:
        """Update once."""
        latents, embeds, pooled = self.batch()
        noise = torch.randn_like(latents).chunk(2)[0].repeat(2, 1, 1, 1)
        timesteps = torch.randint(0, self.scheduler.config.num_train_timesteps, (self.batch_size,)).repeat(2)
        loss = self.loss(latents, embeds, pooled, noise, timesteps)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def write_model(folder: Path) -> str:
    """Write the toy SDXL that the tests use; return its path."""
    StableDiffusionXL.tiny().pipeline().save_pretrained(folder)
    return str(folder)


def write_pairs(folder: Path, num_pairs: int, side: int) -> tuple[Tensor, list[str]]:
    """Write a store of pairs of random pictures; return the same as (2, N, 3, H, W) pixels and captions."""
    drawn = torch.randint(0, 256, (2, num_pairs, side, side, 3), dtype=torch.uint8, generator=Random(0).generator("x"))
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(num_pairs)]
    records = [
        Record(str(i), prompt, tuple(Candidate(bytes=_png(drawn[k, i])) for k in range(2)), (Judgement(0, 1, 1.0),))
        for i, prompt in enumerate(prompts)
    ]
    write_store(folder, records)
    return drawn.permute(0, 1, 4, 2, 3).float() / 127.5 - 1, prompts


def _png(pixels: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def make_trainer(folder: Path, path: str, batch_size: int, steps: int) -> Trainer:
    """Return our trainer with the example's settings."""
    recipe = {
        "output": str(folder / "run"),
        "model": {"family": "sdxl", "path": path},
        "adapter": {"kind": "lora", "rank": RANK},
        "data": {"source": str(folder / "pairs")},
        "method": {"diffusion_dpo": {"empty_prompt_prob": 0.0}},
        "objective": [{"dpo": {"beta": BETA}}],
        "optim": {"learning_rate": RATE},
        "training": {"steps": steps, "batch_size": batch_size},
    }
    return Trainer(build_recipe(recipe))


def compare(folder: Path, path: str | None, batch_size: int, repeats: int, warmup: int) -> dict[str, list[float]]:
    """Return the CPU milliseconds of each step, by contender; those of one position ran one after another."""
    path = path or write_model(folder / "model")
    pixels, prompts = write_pairs(folder / "pairs", 4 * batch_size, load_family("sdxl", path).native_resolution())
    steps = make_trainer(folder, path, batch_size, warmup + repeats).steps()
    contenders: dict[str, Callable[[], object]] = {
        "example": Example(load_family("sdxl", path), pixels, prompts, batch_size),
        "example, cached": Example(load_family("sdxl", path), pixels, prompts, batch_size, cached=True),
        "diffpref": lambda: next(steps),
    }
    names, times = list(contenders), {name: list[float]() for name in contenders}
    for repeat in range(warmup + repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.process_time()
            contenders[name]()
            if repeat >= warmup:
                times[name].append(1e3 * (time.process_time() - start))
    return times


def show(times: dict[str, list[float]]) -> str:
    """Return the table, in Markdown: medians, and the example's time over each in the same turn."""
    lines = ["| step | CPU ms, median | example / this, median (quartiles) |", "| :--- | ---: | ---: |"]
    for name, own in times.items():
        ratios = [example / this for example, this in zip(times["example"], own, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append(f"| {name} | {statistics.median(own):.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    return "\n".join(lines)


def main() -> None:
    """Compare and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="an SDXL, such as bundled:shapes-sdxl; not given: the toy of the tests")
    parser.add_argument("--pairs", type=int, default=4, help="in a step")
    parser.add_argument("--repeats", type=int, default=60, help="timed steps of each, at least 2")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.pairs < 1 or given.repeats < 2 or given.warmup < 0:
        parser.error("--pairs must be at least 1, --repeats at least 2, --warmup at least 0")
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        times = compare(Path(folder), given.path, given.pairs, given.repeats, given.warmup)
    print(json.dumps(times, indent=1) if given.json else show(times))


if __name__ == "__main__":
    main()
