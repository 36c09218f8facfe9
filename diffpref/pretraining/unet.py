"""Train the bundled SDXL UNet on the shapes world and put the whole pipeline together.

Run ``python -m diffpref.pretraining.unet --vae runs/pretraining/vae/model --text runs/pretraining/text/model --output
runs/pretraining/unet`` after the VAE and the text encoders.

Most of the run shows true captions, the last part mistaken ones too; see `diffpref.pretraining.pool`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffpref.core.randomness import Random
from diffpref.pretraining.loop import Loop
from diffpref.pretraining.pool import Scenes
from diffpref.pretraining.text import MAX_TOKENS, WIDTH

__all__ = ["assemble", "build", "encode_sentences", "main"]

BATCH = 64
TIME_IDS = (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)
SNR_GAMMA = 5.0


def build() -> UNet2DConditionModel:
    """Return the untrained network: SDXL's class and wiring at toy size."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1, 1),
        attention_head_dim=(2, 4, 6),
        norm_num_groups=16,
        cross_attention_dim=2 * WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * len(TIME_IDS) + WIDTH,
    )


def scheduler() -> DDIMScheduler:
    """Return the noise schedule: SDXL's betas, epsilon prediction, evenly trailing timesteps."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
        prediction_type="epsilon",
    )


def assemble(vae: Path, text: Path, unet: UNet2DConditionModel) -> StableDiffusionXLPipeline:
    """Return the pipeline, in float32."""
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(vae),
        text_encoder=CLIPTextModel.from_pretrained(text / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(text / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(text / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(text / "tokenizer_2"),
        unet=unet,
        scheduler=scheduler(),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


@torch.no_grad()
def encode_sentences(pipeline: StableDiffusionXLPipeline, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return (N, 16, 128) embeddings and (N, 64) pooled embeddings."""
    embeds, _, pooled, _ = pipeline.encode_prompt(list(sentences), do_classifier_free_guidance=False)
    assert embeds.shape[1] == MAX_TOKENS
    return embeds, pooled


def main(
    vae: Path,
    text: Path,
    output: Path,
    steps: int = 2000,
    seed: int = 0,
    wrong_from: float = 0.4,
    wrong_share: float = 0.5,
    scenes_per_caption: int = 20,
    device: str = "cpu",
) -> None:
    """Train and write the pipeline folder to ``output/model``.

    Args:
        vae: the VAE's folder.
        text: the folder of the tokenizers and text encoders.
        output: working folder; a run that finds a checkpoint there goes on from it.
        steps: updates of 64 scenes.
        seed: seed of the weights and of every draw.
        wrong_from: the share of the run after which captions may be wrong.
        wrong_share: the share of captions that is wrong in one fact from then on.
        scenes_per_caption: how many pictures of each caption are drawn.
        device: torch device.
    """
    random = Random(seed)
    torch.manual_seed(seed)
    unet = build().to(device)
    pipeline = assemble(vae, text, unet)
    encoder = pipeline.vae.to(device)

    def encode_pictures(pixels: Tensor) -> Tensor:
        return encoder.encode(pixels.to(device)).latent_dist.mode() * encoder.config.scaling_factor

    def encode(sentences: Sequence[str]) -> tuple[Tensor, ...]:
        return tuple(told.to(device) for told in encode_sentences(pipeline, sentences))

    scenes = Scenes(encode_pictures, encode, random, scenes_per_caption, BATCH)
    alphas = pipeline.scheduler.alphas_cumprod.to(device)
    time_ids = torch.tensor([TIME_IDS], device=device).expand(BATCH, -1)
    loop = Loop(output, {"unet": unet}, steps=steps, learning_rate=1e-3, ema_decay=0.999, checkpoint_every=250)
    for step in loop:
        latents, (embeds, pooled) = scenes.batch(step, wrong_share if step >= wrong_from * steps else 0.0)
        generator = random.generator("noise", step)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        timesteps = torch.randint(len(alphas), (BATCH,), generator=generator).to(device)
        alpha = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        added = {"text_embeds": pooled, "time_ids": time_ids}
        predicted = unet(noisy, timesteps, embeds, added_cond_kwargs=added).sample
        errors = (predicted - noise).square().mean((1, 2, 3))
        snr = alpha.flatten() / (1 - alpha.flatten())
        loop.update((errors * snr.clamp(max=SNR_GAMMA) / snr).mean(), error=errors.mean())
    pipeline.unet = loop.averaged["unet"].eval()
    pipeline.to("cpu").save_pretrained(output / "model")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
