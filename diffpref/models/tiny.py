"""Parts of the toy-size families that tests build: real classes, random weights."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from diffpref.models.clip_towers import Towers
from diffpref.models.loading import freeze

__all__ = [
    "tiny_clip",
    "tiny_clip_text",
    "tiny_scheduler",
    "tiny_sdxl_texts",
    "tiny_t5",
    "tiny_tokenizer",
    "tiny_vae",
]


def tiny_scheduler(prediction_type: str = "epsilon") -> DDIMScheduler:
    """Return the noise schedule of the published Stable Diffusion checkpoints; a schedule has no size."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def tiny_tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer of single letters, 16 tokens long."""
    letters = [chr(code) for code in range(33, 127)]
    special = ["<|startoftext|>", "<|endoftext|>"]
    words = [*special, *letters, *(f"{letter}</w>" for letter in letters)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=16)


def tiny_clip(seed: int = 0) -> tuple[Towers, CLIPModel]:
    """Return what feeds a CLIP model of 16 pixels and features of 12 numbers, and the model with random weights."""
    tokenizer = tiny_tokenizer()
    common = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1}
    vision = {"image_size": 16, "patch_size": 8}
    torch.manual_seed(seed)
    config = CLIPConfig(text_config={**common, **text}, vision_config={**common, **vision}, projection_dim=12)
    size = {"height": 16, "width": 16}
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size)
    return Towers(tokenizer, processor, 16), freeze(CLIPModel(config))


def tiny_clip_text() -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Return a tokenizer of single letters and a CLIP text encoder of width 16."""
    tokenizer = tiny_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return tokenizer, freeze(CLIPTextModel(config))


def tiny_sdxl_texts(first: bool = True) -> list[tuple[CLIPTokenizer, CLIPTextModel | CLIPTextModelWithProjection]]:
    """Return a tokenizer of single letters with each of SDXL's two encoders, of width 16; without the first: one."""
    tokenizer = tiny_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        projection_dim=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    second = freeze(CLIPTextModelWithProjection(config))
    return [*([(tokenizer, freeze(CLIPTextModel(config)))] if first else []), (tokenizer, second)]


def tiny_t5(width: int) -> tuple[T5TokenizerFast, T5EncoderModel]:
    """Return a T5 tokenizer of single letters and an encoder of some width."""
    words = ["<pad>", "</s>", "<unk>", "\u2581", *map(chr, range(33, 127))]
    tokenizer = T5TokenizerFast(vocab=[(word, 0.0) for word in words], extra_ids=0, model_max_length=32)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2, is_encoder_decoder=False
    )
    return tokenizer, freeze(T5EncoderModel(config))


def tiny_vae(shift_factor: float | None = None) -> AutoencoderKL:
    """Return an AutoencoderKL that turns 64 pixels into 8 x 8 latents."""
    return AutoencoderKL(
        block_out_channels=(4, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        shift_factor=shift_factor,
    )
