"""Vision-language models of transformers at toy size, with random weights, as transformers saves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken

from diffpref.models.pictures import tiny_processor, tiny_seer

__all__ = ["numbers", "save_llava", "save_qwen2_vl"]

ROOM = 2048


def widen(network: Any, seed: int = 0, std: float = 0.2) -> Any:
    """Draw larger weights, so that what is seen and asked matters."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=std)
    return network


def save_llava(
    folder: Path, seed: int = 0, answers: Sequence[str] = (), phrases: Sequence[str] = (), std: float = 0.2
) -> Path:
    """A LLaVA of two layers that reads bytes and pictures of 16 x 16 pixels.

    Args:
        folder: where it is saved.
        seed: of its weights.
        answers: words of which it says one at a time, and nothing else: which one is up to its random weights.
        phrases: texts that are one token each, so that long questions are short for it.
        std: of its weights; the larger, the more each token matters.
    """
    processor = tiny_processor()
    tokenizer = processor.tokenizer
    tokenizer.model_max_length = ROOM
    tokenizer.add_tokens([AddedToken(words, normalized=False) for words in (*answers, *phrases)])
    network = tiny_seer(processor, seed)
    network.config.text_config.max_position_embeddings = ROOM
    widen(network, seed, std)
    if answers:
        head = network.get_output_embeddings().weight.data
        spoken = tokenizer.convert_tokens_to_ids(list(answers))
        kept = head[spoken]
        kept[1::2] = -kept[: len(kept) // 2 * 2 : 2]  # of two that are opposite, one is above what is never said
        head.zero_()
        head[spoken] = kept
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def numbers(low: float = 1, high: float = 5, step: float = 0.01, form: str = "Score: {:.2f}\n") -> list[str]:
    """Return answers that a judge may give, each with another number."""
    return [form.format(*[low + step * k] * form.count("{")) for k in range(round((high - low) / step) + 1)]


QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif part['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_WORDS = [
    "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
]  # fmt: skip


def qwen2_vl_processor() -> Any:
    """Return a processor of bytes, of pictures and of videos, whose patches are of 14 x 14 pixels as published."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    from diffpref.models.decoders import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = ROOM
    tokenizer.add_special_tokens({"additional_special_tokens": QWEN_WORDS})
    size = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    return Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=size), tokenizer, Qwen2VLVideoProcessor(size=size), chat_template=QWEN_TEMPLATE
    )


def qwen2_vl_config(tokenizer: Any) -> Any:
    """Return the config of a Qwen2-VL of two layers above a tower of two."""
    from transformers import Qwen2VLConfig

    token = tokenizer.convert_tokens_to_ids
    return Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": ROOM,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={"depth": 2, "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2, "hidden_size": 32},
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )


def save_qwen2_vl(folder: Path, seed: int = 0) -> Path:
    """A Qwen2-VL whose pictures have as many tokens as their size asks for."""
    from transformers import Qwen2VLForConditionalGeneration

    processor = qwen2_vl_processor()
    widen(Qwen2VLForConditionalGeneration(qwen2_vl_config(processor.tokenizer)), seed).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
