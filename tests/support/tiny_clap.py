"""A CLAP model of transformers at toy size: one second of 8 kHz, random weights, as its library saves it."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["RATE", "save_clap"]

RATE = 8_000


def save_clap(folder: Path, *, fused: bool = False) -> Path:
    """Write model, feature extractor and tokenizer."""
    from transformers import (
        ClapAudioConfig,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapTextConfig,
        RobertaTokenizer,
    )

    letters = [chr(code) for code in range(33, 127)]
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}", *letters]
    tokenizer = RobertaTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    tokenizer.save_pretrained(folder)
    audio = ClapAudioConfig(
        window_size=2,
        num_mel_bins=16,
        spec_size=32,
        patch_size=4,
        patch_stride=[4, 4],
        hidden_size=32,
        patch_embeds_hidden_size=8,
        depths=[1, 1, 1],
        num_attention_heads=[1, 2, 2],
        projection_dim=12,
        enable_fusion=fused,
        aff_block_r=2,
    )
    text = ClapTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        projection_dim=12,
    )
    torch.manual_seed(0)
    model = ClapModel(ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=12))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    features = ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=RATE,
        hop_length=160,
        max_length_s=1,
        fft_window_size=256,
        frequency_max=4000,
        truncation="fusion" if fused else "rand_trunc",
    )
    features.save_pretrained(folder)
    return folder
