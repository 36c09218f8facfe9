"""Decoders of transformers: loading them safely, their parts, and one at toy size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from diffpref.core.errors import ModelError
from diffpref.likelihood.head import Head
from diffpref.models.base import Network

__all__ = [
    "context_of",
    "decoder_of",
    "head_of",
    "load_decoder",
    "load_tokenizer",
    "read_context",
    "tiny_decoder",
    "tiny_tokenizer",
]

# what from_pretrained of transformers raises on folders, configs and weights that it cannot use
_UNUSABLE = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def load_decoder(
    path: str,
    *,
    dtype: torch.dtype,
    revision: str | None = None,
    variant: str | None = None,
    allow_pickle: bool = False,
    pictures: bool = False,
) -> Network:
    """Load a language model; its weights as safetensors or GGUF, its code from transformers alone.

    Args:
        path: folder, hub id or ``.gguf`` file.
        dtype: of the weights.
        revision: on the hub.
        variant: of the weights.
        allow_pickle: also accept pickled weights, opened with weights-only loading.
        pictures: whether it reads pictures too.

    Raises:
        ModelError: one line that says what is wrong; also when weights are missing.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind = AutoModelForImageTextToText if pictures else AutoModelForCausalLM
    where, options = _where(path)
    if not options:
        options = {"use_safetensors": None if allow_pickle else True, "variant": variant}
    try:
        network, report = kind.from_pretrained(
            where, dtype=dtype, revision=revision, trust_remote_code=False, output_loading_info=True, **options
        )
    except _UNUSABLE as error:
        what = "vision-language" if pictures else "language"
        raise ModelError(f"model.path: {path} holds no {what} model that can be loaded ({_first(error)})") from error
    tied = set(getattr(network, "all_tied_weights_keys", {}) or {})
    if missing := sorted(set(report["missing_keys"]) - tied):
        raise ModelError(f"model.path: {path} lacks {len(missing)} weights, the first is {missing[0]}")
    if path.endswith(".gguf"):  # its weights are full numbers now, and are saved as such
        del network.config.quantization_config
        network.hf_quantizer, network.is_quantized = None, False
    if network.get_output_embeddings() is None:
        raise ModelError(f"model.path: {path} is a {type(network).__name__}, which has no head over a vocabulary")
    return network


def load_tokenizer(path: str, *, revision: str | None = None) -> Any:
    """Load a tokenizer; where it has no token for padding, the end-of-text token fills.

    Raises:
        ModelError: there is none, or it has no end-of-text token.
    """
    from transformers import AutoTokenizer

    where, options = _where(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=False, **options)
    except _UNUSABLE as error:
        raise ModelError(f"model.path: {path} holds no tokenizer that can be loaded ({_first(error)})") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"model.path: the tokenizer of {path} has no end-of-text token (eos_token)")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def context_of(path: str, *, revision: str | None = None) -> int | None:
    """Return how many tokens a model reads, without loading it.

    Raises:
        ModelError: there is no config.
    """
    from transformers import AutoConfig

    where, options = _where(path)
    try:
        return read_context(AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False, **options))
    except _UNUSABLE as error:
        raise ModelError(f"model.path: {path} holds no language model that can be loaded ({_first(error)})") from error


def read_context(config: Any) -> int | None:
    """Return how many tokens a model reads, by its config; None where it does not say."""
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(found) if found else None


def _where(path: str) -> tuple[str, dict[str, Any]]:
    """Return what transformers is told: a folder or hub id, and the GGUF file in it."""
    if not path.endswith(".gguf"):
        return path, {}
    if not Path(path).is_file():
        raise ModelError(f"model.path: {path}: no such file")
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise ModelError(f"model.path: {path} needs the package 'gguf'; pip install 'diffpref[gguf]'") from error
    return str(Path(path).parent), {"gguf_file": Path(path).name}


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def decoder_of(network: Network) -> Network:
    """Return the part of a causal language model below its head."""
    return network.base_model


def blocks_of(decoder: Network) -> list[nn.Module]:
    """Return the repeated blocks of a decoder: its longest list of modules."""
    lists = [list(module) for module in decoder.children() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len) if lists else [decoder]


def head_of(network: Network) -> Head:
    """Return the head of a causal language model, with what its config does to the logits."""
    layer = network.get_output_embeddings()
    weight = getattr(layer, "weight", None)
    if hasattr(layer, "base_layer") or weight is None:
        raise ModelError("adapter.targets: the head over the vocabulary cannot be adapted; leave it out")
    config = network.config.get_text_config()
    named = (getattr(config, name, None) for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"))
    scale = next((float(value) for value in named if value is not None), None)
    if scale is None and (scaling := getattr(config, "logits_scaling", None)) is not None:
        scale = float(scaling) if config.model_type == "hyperclovax" else 1.0 / float(scaling)
    cap = getattr(config, "final_logit_softcapping", None)
    return Head(weight, getattr(layer, "bias", None), 1.0 if scale is None else scale, cap)


def tiny_tokenizer(size: int = 0) -> Any:
    """Return a tokenizer of single bytes with a chat template.

    Args:
        size: words that it has at least; what is more than bytes is met in no text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>"]
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += [f"<{number}>" for number in range(len(words), size)]
    built = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=128
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_decoder(tokenizer: Any, seed: int = 0) -> Network:
    """Return a Llama of two layers with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)
