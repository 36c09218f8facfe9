"""A checkpoint of PairRM's layout at toy size: DeBERTa v3 of transformers, the published names, random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

__all__ = ["PREFIXES", "save_pairrm"]

PREFIXES = ("<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>")
WORDS = ("a", "red", "blue", "green", "white", "circle", "square", "ring", "cross", "number", *"0123456789")


def save_pairrm(folder: Path) -> Path:
    """Write ``config.json``, ``model.safetensors`` and a tokenizer of words that knows the prefixes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import DebertaV2Config, DebertaV2Model, PreTrainedTokenizerFast

    vocab = {word: number for number, word in enumerate(("[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS))}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    named = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **named)
    tokenizer.add_tokens(list(PREFIXES))
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = DebertaV2Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        relative_attention=True,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        layer_norm_eps=1e-7,
        **sizes,
    )
    random = torch.Generator().manual_seed(2)
    body = DebertaV2Model(config).state_dict()
    state = {f"pretrained_model.{name}": torch.empty_like(tensor) for name, tensor in body.items()}
    state |= {"head_layer.1.weight": torch.empty(32, 64), "head_layer.1.bias": torch.empty(32)}
    state |= {"head_layer.4.weight": torch.empty(1, 32), "head_layer.4.bias": torch.empty(1)}
    for name, tensor in state.items():
        noise = torch.randn(tensor.shape, generator=random)
        state[name] = 1 + 0.1 * noise if "LayerNorm.weight" in name else 0.4 * noise
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    first = {"source_prefix_id": 0, "cand1_prefix_id": 1, "cand2_prefix_id": 2, "cand_prefix_id": 3}
    own = {key: tokenizer.convert_tokens_to_ids(PREFIXES[number]) for key, number in first.items()}
    told = {**config.to_dict(), **own, "n_tasks": 1, "drop_out": 0.05, "sep_token_id": 2}
    told["architectures"] = ["DebertaV2PairRM"]
    (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    return folder
