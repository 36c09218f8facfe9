"""Networks that read text at toy size, with random weights, as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_blip import WORDS, save_bert_vocabulary

__all__ = ["answers", "bert_tokenizer", "save_bert", "save_llama"]

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def answers(count: int) -> list[str]:
    """Return different answers, of different lengths; a longer list begins as a shorter one."""
    colours = ("red", "blue", "green", "white")
    return [" ".join(["a", colours[i % 4], "circle", *["number"] * (i % 3), str(i % 10)]) for i in range(count)]


def loud(network: Any, seed: int) -> Any:
    """Draw matrices large enough that different texts get different numbers."""
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.data = torch.randn(parameter.shape, generator=random) * 0.3
    return network


def bert_tokenizer(folder: Path) -> Any:
    """Save and return BERT's tokenizer over a few words."""
    from transformers import BertTokenizer

    save_bert_vocabulary(folder)
    tokenizer = BertTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_bert(folder: Path, kind: str, seed: int = 0, **config: Any) -> Path:
    """Save a BERT of a class of transformers, such as ``BertModel``, and its tokenizer."""
    import transformers

    bert_tokenizer(folder)
    settings = transformers.BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=48, pad_token_id=0, **{**TINY, **config}
    )
    loud(getattr(transformers, kind)(settings), seed).save_pretrained(folder)
    return folder


def save_llama(folder: Path, kind: str, seed: int = 0, **config: Any) -> Path:
    """Save a Llama of a class of transformers, such as ``LlamaForSequenceClassification``, with a chat template."""
    import transformers

    from diffpref.models.decoders import TEMPLATE, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    sizes = {**TINY, "num_key_value_heads": 2, "max_position_embeddings": 128, "vocab_size": len(tokenizer)}
    settings = transformers.LlamaConfig(**{**sizes, **special, **config})
    loud(getattr(transformers, kind)(settings), seed).save_pretrained(folder)
    return folder
