"""Train the bundled SD3-class transformer on the shapes world and put the whole pipeline together.

Run ``python -m diffpref.pretraining.sd3 --output runs/pretraining/sd3``: VAE and text encoders are those of the bundled
SDXL pipeline. There is no T5, as many run SD3; then the pipeline hands the transformer as many zeros as T5 would have
tokens. Most steps have few of these, some the pipeline's usual number, so that both work. Load the result with
``from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)``: diffusers asks for them.

Most of the run shows true captions, the last part mistaken ones too; see `diffpref.pretraining.pool`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffpref.core.assets import resolve
from diffpref.core.randomness import Random
from diffpref.pretraining.loop import Loop
from diffpref.pretraining.pool import Scenes
from diffpref.pretraining.text import MAX_TOKENS, WIDTH

__all__ = ["assemble", "build", "encode_sentences", "main", "with_projection"]

BATCH = 64
SHIFT = 3.0
FEW, USUAL, EVERY = 16, 256, 16
"""Zero tokens in place of T5's: few, and every 16th step the pipeline's usual number."""


def build() -> SD3Transformer2DModel:
    """Return the untrained network: SD3's class and wiring at toy size."""
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=3,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=96,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Return the noise schedule: SD3's, with its shift of 3."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)


def with_projection(encoder: CLIPTextModel) -> CLIPTextModelWithProjection:
    """Return the encoder with a projection that changes nothing: SD3 reads a pooled vector of both encoders."""
    config = CLIPTextConfig.from_dict({**encoder.config.to_dict(), "projection_dim": encoder.config.hidden_size})
    projected = CLIPTextModelWithProjection(config)
    missing, unexpected = projected.load_state_dict(
        {
            name if name.startswith("text_model.") else f"text_model.{name}": t
            for name, t in encoder.state_dict().items()
        },
        strict=False,
    )
    if unexpected or missing != ["text_projection.weight"]:
        raise ValueError(f"the encoder's weights do not fit: {unexpected or missing}")
    with torch.no_grad():
        projected.text_projection.weight.copy_(torch.eye(config.hidden_size))
    return projected.eval()


def assemble(base: Path, transformer: SD3Transformer2DModel) -> StableDiffusion3Pipeline:
    """Return the pipeline, in float32.

    Args:
        base: folder of the SDXL pipeline that lends VAE and text encoders.
        transformer: the denoiser.
    """
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=scheduler(),
        vae=AutoencoderKL.from_pretrained(base / "vae", shift_factor=0.0),
        text_encoder=with_projection(CLIPTextModel.from_pretrained(base / "text_encoder")),
        tokenizer=CLIPTokenizer.from_pretrained(base / "tokenizer"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(base / "text_encoder_2"),
        tokenizer_2=CLIPTokenizer.from_pretrained(base / "tokenizer_2"),
        text_encoder_3=None,
        tokenizer_3=None,
    )


@torch.no_grad()
def encode_sentences(pipeline: StableDiffusion3Pipeline, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return (N, 16, 128) embeddings of both encoders, without T5's zeros, and (N, 128) pooled embeddings."""
    embeds, _, pooled, _ = pipeline.encode_prompt(
        list(sentences), None, None, do_classifier_free_guidance=False, max_sequence_length=1
    )
    assert embeds.shape[1] == MAX_TOKENS + 1
    return embeds[:, :MAX_TOKENS], pooled


def main(
    output: Path,
    base: str = "bundled:shapes-sdxl",
    steps: int = 4000,
    seed: int = 0,
    learning_rate: float = 1e-3,
    wrong_from: float = 0.4,
    wrong_share: float = 0.5,
    scenes_per_caption: int = 20,
    device: str = "cpu",
) -> None:
    """Train and write the pipeline folder to ``output/model``.

    Args:
        output: working folder; a run that finds a checkpoint there goes on from it.
        base: SDXL pipeline that lends VAE and text encoders.
        steps: updates of 64 scenes.
        seed: seed of the weights and of every draw.
        learning_rate: peak of the cycle.
        wrong_from: the share of the run after which captions may be wrong.
        wrong_share: the share of captions that is wrong in one fact from then on.
        scenes_per_caption: how many pictures of each caption are drawn.
        device: torch device.
    """
    random = Random(seed)
    torch.manual_seed(seed)
    transformer = build().to(device)
    pipeline = assemble(Path(resolve(base)), transformer)
    vae = pipeline.vae.to(device)

    def encode_pictures(pixels: Tensor) -> Tensor:
        return vae.encode(pixels.to(device)).latent_dist.mode() * vae.config.scaling_factor

    def encode(sentences: Sequence[str]) -> tuple[Tensor, ...]:
        return tuple(told.to(device) for told in encode_sentences(pipeline, sentences))

    scenes = Scenes(encode_pictures, encode, random, scenes_per_caption, BATCH)
    loop = Loop(
        output,
        {"transformer": transformer},
        steps=steps,
        learning_rate=learning_rate,
        ema_decay=0.999,
        checkpoint_every=250,
    )
    for step in loop:
        latents, (embeds, pooled) = scenes.batch(step, wrong_share if step >= wrong_from * steps else 0.0)
        generator = random.generator("noise", step)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        drawn = torch.randn(BATCH, generator=generator).sigmoid()  # logit-normal, as SD3 was trained
        sigmas = (SHIFT * drawn / (1 + (SHIFT - 1) * drawn)).to(device)
        level = sigmas.view(-1, 1, 1, 1)
        zeros = embeds.new_zeros(BATCH, USUAL if step % EVERY == 0 else FEW, embeds.shape[2])
        predicted = transformer(
            (1 - level) * latents + level * noise,
            encoder_hidden_states=torch.cat([embeds, zeros], dim=1),
            pooled_projections=pooled,
            timestep=1000 * sigmas,
        ).sample
        loop.update((predicted - (noise - latents)).square().mean())
    pipeline.transformer = loop.averaged["transformer"].eval()
    pipeline.to("cpu").save_pretrained(output / "model")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
