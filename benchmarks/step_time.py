"""Our training step against that of the published scripts, on CPU: ``python benchmarks/step_time.py``.

Same pictures, captions, weights, adapter, loss (Diffusion-DPO), optimiser, and the same draws of noise and timestep, so
that the losses must agree; the steps take turns in one process on one thread, and CPU time is counted, so that other
work on the machine hardly matters. The model is a small SDXL whose VAE, text encoders and denoiser stand to each other
as SDXL's do at 1024 pixels: encoding an image costs about 0.7, a caption about 0.02 of a denoiser's forward.

- ``published``: as diffusers' ``train_diffusion_dpo_sdxl.py`` does it: a float32 VAE and both text encoders in every
  step, one forward for all images of the pairs, the reference by PEFT's ``disable_adapters`` and ``enable_adapters``.
  Pixels and token ids lie in memory, so it reads no data and decodes no image.
- ``published, second copy``: the same with another whole denoiser as reference, as for full fine-tuning.
- ``published, cached``: the first without VAE and text encoders in the step.
- ``diffpref``: `diffpref.Trainer` as users run it: reads its cache, draws by key, guards, writes ``metrics.jsonl``.
- ``diffpref, bank``: the same from a bank that is full.
- ``diffpref, filling``: the same from a bank that is empty at every step: what the first visit of a record costs.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, mse_loss
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from diffpref.config import build_recipe
from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.core.randomness import Random
from diffpref.data import write_store
from diffpref.models import DenoiserFamily, load_family
from diffpref.models.adapters.lora import Lora
from diffpref.models.families.sdxl import StableDiffusionXL
from diffpref.models.family import TextEncoder
from diffpref.training import Trainer
from diffpref.training.batches import Batches

RANK, RATE = 8, 1e-5
BETA = 20.0
"""Published is 5000. Beta costs no time, but multiplies by how much forwards of other row counts differ in float32."""
PROMPTS = ("a red circle", "a blue square", "a green star", "two shapes")
Items = Sequence[tuple[int, int]]


class Published:
    """The step of diffusers' script.

    Args:
        family: all parts of an SDXL; a LoRA is put into its denoiser.
        pixels: (2, N, 3, H, W) in [-1, 1], the chosen and the rejected images.
        prompts: N captions.
        draws: says which pairs are next, and with which noise and timesteps.
        batch_size: pairs in a step.
        beta: of the loss.
        cached: encode once, here, instead of in every step.
        second_copy: keep another denoiser as reference.
    """

    def __init__(
        self,
        family: DenoiserFamily,
        pixels: Tensor,
        prompts: list[str],
        draws: Batches,
        batch_size: int,
        beta: float = BETA,
        *,
        cached: bool = False,
        second_copy: bool = False,
    ) -> None:
        self.beta = beta
        self.second = copy.deepcopy(family.network) if second_copy else None
        self.trained = Lora(rank=RANK).install(family, Random(0))["adapter"]
        self.family, self.vae, self.unet = family, family.vae, family.network
        self.scheduler: Any = family.scheduler()
        self.ids = [t.tokens(prompts) for t in family.texts]
        self.pixels, self.draws, self.batch_size, self.position = pixels, draws, batch_size, 0
        self.optimizer = torch.optim.AdamW(self.trained, lr=RATE)
        self.cache = {i: self.encode(torch.tensor([i])) for i in range(len(prompts))} if cached else None

    @property
    def networks(self) -> list[nn.Module]:
        """What lies in memory."""
        encoders = [] if self.cache else [self.vae, *(text.model for text in self.family.texts)]
        return [n for n in (self.unet, self.second, *encoders) if n is not None]

    @torch.no_grad()
    def encode(self, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return posteriors (mean and std, 2B rows each) and text embeddings (B, T, D) and (B, P) of pairs."""
        vae: Any = self.vae
        parts = [vae.encode(part).latent_dist for part in self.pixels[:, pairs].flatten(0, 1).split(8)]
        scale = vae.config.scaling_factor
        mean, std = torch.cat([p.mean for p in parts]) * scale, torch.cat([p.std for p in parts]) * scale
        outputs = [
            t.model(i[pairs], output_hidden_states=True) for t, i in zip(self.family.texts, self.ids, strict=True)
        ]
        return mean, std, torch.cat([o.hidden_states[-2] for o in outputs], dim=-1), outputs[-1][0]

    def encoded(self, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the same, from memory where it was encoded before."""
        if self.cache is None:
            return self.encode(pairs)
        mean, std, embeds, pooled = zip(*(self.cache[i] for i in pairs.tolist()), strict=True)
        sides = [torch.stack(part, dim=1).flatten(0, 1) for part in (mean, std)]
        return sides[0], sides[1], torch.cat(embeds), torch.cat(pooled)

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return latents, embeddings, pooled embeddings, noise (2B rows each, the chosen first) and B timesteps."""
        items = self.draws.sampler.batch(self.position, self.batch_size)
        self.position += 1
        mean, std, embeds, pooled = self.encoded(torch.tensor([index for index, _ in items]))
        keys, random, shape = self.draws.keys(items), self.draws.random, mean.shape[1:]
        sampled = torch.cat([random.normal("posterior", [(*key, side) for key in keys], shape) for side in range(2)])
        noise = random.normal("noise", keys, shape).repeat(2, 1, 1, 1)
        timesteps = self.family.sample_timesteps(random.uniform("timestep", keys))
        return mean + std * sampled, embeds.repeat(2, 1, 1), pooled.repeat(2, 1), noise, timesteps

    def loss(self, latents: Tensor, embeds: Tensor, pooled: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the loss of 2B rows, the chosen first."""
        side = float(self.pixels.shape[-1])
        time_ids = torch.tensor([[side, side, 0.0, 0.0, side, side]]).repeat(len(latents), 1)
        added, timesteps = {"text_embeds": pooled, "time_ids": time_ids}, timesteps.repeat(2)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        prediction = self.unet(noisy, timesteps, embeds, added_cond_kwargs=added).sample
        errors = mse_loss(prediction, noise, reduction="none").mean(dim=(1, 2, 3))
        if self.second is None:
            self.unet.disable_adapters()
        with torch.no_grad():
            asked = self.unet if self.second is None else self.second
            prediction = asked(noisy, timesteps, embeds, added_cond_kwargs=added).sample
            reference = mse_loss(prediction, noise, reduction="none").mean(dim=(1, 2, 3))
        if self.second is None:
            self.unet.enable_adapters()
        (chosen, rejected), (chosen_reference, rejected_reference) = errors.chunk(2), reference.chunk(2)
        inside = -0.5 * self.beta * ((chosen - rejected) - (chosen_reference - rejected_reference))
        return -logsigmoid(inside).mean()

    def __call__(self) -> float:
        """Update once."""
        loss = self.loss(*self.batch())
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


class Ours:
    """Our trainer, update by update.

    Args:
        trainer: with a bank.
        bank: ``"off"``: the live reference instead; ``"full"``; ``"empty"``: emptied before every update.
    """

    def __init__(self, trainer: Trainer, bank: str) -> None:
        trainer.setup()
        self.trainer, self.bank, self.steps = trainer, bank, trainer.steps()
        self.networks: list[nn.Module] = [trainer.bare]
        if bank == "off":
            trainer.roles["reference"] = trainer.banked["reference"].role

    def __call__(self) -> float:
        """Update once."""
        if self.bank == "empty":
            self.trainer.banked["reference"].banks.clear()
        return next(self.steps)["loss"]


def proportioned(seed: int = 0) -> StableDiffusionXL:
    """Return a small SDXL in which the parts cost in proportion what SDXL's cost at 1024 pixels."""
    family = StableDiffusionXL.tiny(seed)
    tokenizer = family.texts[0].tokenizer

    def text(kind: type[Any], width: int, layers: int) -> TextEncoder:
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width}
        heads = {"num_hidden_layers": layers, "num_attention_heads": 2, "max_position_embeddings": 16}
        model = kind(CLIPTextConfig(vocab_size=len(tokenizer), **sizes, **heads, **ends))
        return TextEncoder(tokenizer, model.requires_grad_(False).eval())

    family.texts = (text(CLIPTextModel, 32, 2), text(CLIPTextModelWithProjection, 48, 3))
    family.vae = AutoencoderKL(
        block_out_channels=(16, 32, 48, 48),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
    )
    family.network = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(48, 96),
        layers_per_block=2,
        norm_num_groups=8,
        cross_attention_dim=80,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=16 * 6 + 48,
    )
    for network in (family.vae, family.network):
        network.requires_grad_(False).eval()
    return family


def proportions(family: DenoiserFamily, side: int) -> dict[str, float]:
    """Return the floating-point operations of encoding an image and a caption, in forwards of the denoiser."""

    def operations(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            work()
        return counter.get_total_flops()

    told = family.encode_prompt(["a"], side)
    shape = family.latent_shape(side)
    inputs = {"noisy": torch.zeros(1, *shape), "timesteps": torch.zeros(1, dtype=torch.int64)}
    denoiser = operations(lambda: family.forward(family.network, inputs, told))
    image = operations(lambda: family.encode_media(torch.zeros(1, 3, side, side)))
    return {"image": image / denoiser, "caption": operations(lambda: family.encode_prompt(["a"], side)) / denoiser}


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


def make_trainer(folder: Path, name: str, path: str, batch_size: int, steps: int, beta: float = BETA) -> Trainer:
    """Return our trainer with the script's settings."""
    recipe = {
        "output": str(folder / name),
        "model": {"family": "sdxl", "path": path},
        "adapter": {"kind": "lora", "rank": RANK},
        "data": {"source": str(folder / "pairs"), "cache": str(folder / "cache")},
        "method": {"diffusion_dpo": {"empty_prompt_prob": 0.0}},
        "objective": [{"dpo": {"beta": beta}}],
        "optim": {"learning_rate": RATE},
        "bank": {"slots": 1, "folder": str(folder / "banks" / name)},
        "training": {"steps": steps, "batch_size": batch_size},
    }
    return Trainer(build_recipe(recipe))


def contenders(folder: Path, path: str, batch_size: int, steps: int, beta: float = BETA) -> dict[str, Any]:
    """Return what takes turns, by name."""
    pixels, prompts = write_pairs(folder / "pairs", 4 * batch_size, load_family("sdxl", path).native_resolution())
    ours = {
        name: Ours(make_trainer(folder, name, path, batch_size, steps, beta), bank)
        for name, bank in (("diffpref", "off"), ("diffpref, bank", "full"), ("diffpref, filling", "empty"))
    }
    draws = ours["diffpref"].trainer.batches

    def published(**options: bool) -> Published:
        return Published(load_family("sdxl", path), pixels, prompts, draws, batch_size, beta, **options)

    return {
        "published": published(),
        "published, second copy": published(second_copy=True),
        "published, cached": published(cached=True),
        **ours,
    }


def compare(
    folder: Path, path: str | None, batch_size: int, repeats: int, warmup: int, beta: float = BETA
) -> dict[str, Any]:
    """Return CPU milliseconds of each step and the largest difference of losses, by contender."""
    family = load_family("sdxl", path) if path else proportioned()
    if path is None:
        path = str(folder / "model")
        family.pipeline().save_pretrained(path)
    shares = proportions(family, family.native_resolution())
    taking = contenders(folder, path, batch_size, warmup + repeats, beta)
    names = list(taking)
    times, losses = {name: list[float]() for name in names}, {name: list[float]() for name in names}
    for repeat in range(warmup + repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.process_time()
            loss = taking[name]()
            if repeat >= warmup:
                times[name].append(1e3 * (time.process_time() - start))
            losses[name].append(loss)
    first = losses["published"]
    differ = {n: max(abs(a - b) / abs(a) for a, b in zip(first, own, strict=True)) for n, own in losses.items()}
    size = {n: sum(p.nbytes for network in c.networks for p in network.parameters()) for n, c in taking.items()}
    return {"proportions": shares, "milliseconds": times, "losses_differ": differ, "bytes_of_weights": size}


def quartiles(over: list[float], under: list[float]) -> str:
    """Return the median of the ratio turn by turn, with its quartiles."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def show(found: dict[str, Any]) -> str:
    """Return the tables, in Markdown."""
    times = found["milliseconds"]
    shares = found["proportions"]
    lines = [
        f"Operations of encoding: {shares['image']:.2f} (an image), {shares['caption']:.3f} (a caption) of a denoiser's"
        " forward.",
        "",
        "| step | CPU ms, median | published / this, median (quartiles) | weights, MB | losses differ by |",
        "| :--- | ---: | ---: | ---: | ---: |",
    ]
    for name, own in times.items():
        cells = (
            f"{statistics.median(own):.1f}",
            quartiles(times["published"], own),
            f"{found['bytes_of_weights'][name] / 1e6:.1f}",
            f"{found['losses_differ'][name]:.1g}",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    live, bank, filling = (statistics.median(times[n]) for n in ("diffpref", "diffpref, bank", "diffpref, filling"))
    lines += [
        "",
        f"diffpref / diffpref, bank: {quartiles(times['diffpref'], times['diffpref, bank'])}.",
        f"Beside the live reference a first visit costs {filling - live:+.1f} ms a step, each later one"
        f" {bank - live:+.1f} ms: with K draws a record the bank has paid for itself after"
        f" {1 + max(0.0, filling - live) / (live - bank):.2f} K visits.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Compare and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="an SDXL, such as bundled:shapes-sdxl; not given: one in SDXL's proportions")
    parser.add_argument("--pairs", type=int, default=8, help="in a step")
    parser.add_argument("--repeats", type=int, default=30, help="timed steps of each, at least 2")
    parser.add_argument("--warmup", type=int, default=6, help="steps before; the bank is full after 4")
    parser.add_argument("--beta", type=float, default=BETA, help="of the loss; it costs no time")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.pairs < 1 or given.repeats < 2 or given.warmup < 0:
        parser.error("--pairs must be at least 1, --repeats at least 2, --warmup at least 0")
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), given.path, given.pairs, given.repeats, given.warmup, given.beta)
    print(json.dumps(found, indent=1) if given.json else show(found))


if __name__ == "__main__":
    main()
