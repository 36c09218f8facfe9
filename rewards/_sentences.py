"""Sentence encoders as sentence-transformers publishes them: a network, a pooling of its tokens, layers after that."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from diffpref.core.errors import ModelError
from diffpref.rewards._text_network import readable
from diffpref.rewards._vlm import grouped
from diffpref.rewards._weights import UNREADABLE, first_line

__all__ = ["SentenceEncoder", "open_head", "pooled"]

Head = Callable[[Tensor], Tensor]

_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of ``1_Pooling/config.json`` -> names; in the order in which several are joined."""
_ACTIVATIONS: Mapping[str, Head] = {"Tanh": torch.tanh, "Identity": lambda x: x, "ReLU": torch.relu}


def pooled(states: Tensor, how: Sequence[str]) -> Tensor:
    """Return one vector of each text.

    Args:
        states: (N, T, D) last hidden states, all of tokens that are there.
        how: names of poolings, whose results are joined.

    Returns:
        (N, D * len(how)).
    """
    length = states.shape[1]
    weights = torch.arange(1, length + 1, device=states.device, dtype=states.dtype)
    made: dict[str, Callable[[], Tensor]] = {
        "cls": lambda: states[:, 0],
        "max": lambda: states.amax(dim=1),
        "mean": lambda: states.mean(dim=1),
        "mean_sqrt_len_tokens": lambda: states.sum(dim=1) / length**0.5,
        "weightedmean": lambda: (states * weights[:, None]).sum(dim=1) / weights.sum(),
        "lasttoken": lambda: states[:, -1],
    }
    return torch.cat([made[name]() for name in how], dim=1)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read: {first_line(error)}") from error


def _pooling(folder: Path) -> list[str]:
    config = _read(folder / "config.json")
    if isinstance(config.get("pooling_mode"), str):
        how = config["pooling_mode"].split("+")
    else:
        how = [name for key, name in _POOLINGS.items() if config.get(key)]
    if not how or set(how) - set(_POOLINGS.values()):
        raise ModelError(f"{folder / 'config.json'}: says no pooling that is known: {', '.join(_POOLINGS.values())}")
    return how


def _dense(folder: Path) -> Head:
    config = _read(folder / "config.json")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    if name not in _ACTIVATIONS:
        raise ModelError(f"{folder}: activation {name} is not known; known: {', '.join(_ACTIVATIONS)}")
    try:
        tensors = load_file(folder / "model.safetensors")
        weight, bias = tensors["linear.weight"].float(), tensors.get("linear.bias")
    except UNREADABLE as error:
        raise ModelError(f"{folder}: no linear layer in safetensors: {first_line(error)}") from error
    activation, offset = _ACTIVATIONS[name], None if bias is None else bias.float()

    def layer(x: Tensor) -> Tensor:
        told = None if offset is None else offset.to(x.device)
        return activation(torch.nn.functional.linear(x, weight.to(x.device), told))

    return layer


def open_head(folder: Path) -> Head:
    """Return what comes after the network: (N, T, D) states -> (N, E) vectors. A folder that says nothing: their mean.

    Raises:
        ModelError: ``modules.json`` names what is not known here, or a part of it cannot be read.
    """
    how, layers = ["mean"], []
    if (folder / "modules.json").is_file():
        for module in _read(folder / "modules.json"):
            kind, path = str(module.get("type", "")).rsplit(".", 1)[-1], folder / str(module.get("path", ""))
            if kind == "Pooling":
                how = _pooling(path)
            elif kind == "Dense":
                layers.append(_dense(path))
            elif kind not in ("Transformer", "Normalize"):  # a cosine normalises anyway
                raise ModelError(f"{folder / 'modules.json'}: a module of type {kind}, which is not known")
    elif (folder / "1_Pooling" / "config.json").is_file():
        how = _pooling(folder / "1_Pooling")

    def head(states: Tensor) -> Tensor:
        x = pooled(states.float(), how)
        for layer in layers:
            x = layer(x)
        return x

    return head


class SentenceEncoder:
    """Vectors of texts.

    Args:
        network: an encoder of transformers.
        tokenizer: its own.
        head: see `open_head`.
        max_length: tokens that are read of a text; what is longer is cut, as sentence-transformers does it.
        prefix: put before each text, where a model was trained with one.
        micro_batch: texts of one length that run at once.
    """

    def __init__(
        self, network: Any, tokenizer: Any, head: Head, max_length: int | None, prefix: str = "", micro_batch: int = 16
    ) -> None:
        self.network, self.tokenizer, self.head = network, tokenizer, head
        self.max_length, self.prefix, self.micro_batch = max_length, prefix, micro_batch

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return (N, E) float32 vectors of N texts, not normalised; each different text runs once."""
        different = list(dict.fromkeys(texts))
        cut = {} if self.max_length is None else {"truncation": True, "max_length": self.max_length}
        rows = [dict(self.tokenizer(self.prefix + text, return_tensors="pt", **cut)) for text in different]
        vectors = dict(zip(different, grouped(rows, self._run, self.micro_batch), strict=True))
        return torch.stack([vectors[text] for text in texts])

    def _run(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.head(self.network(**readable(self.network, batch)).last_hidden_state).cpu()
