"""Small heads on a language model's hidden states, trained with it: a value of each token, and weights of tokens.

They are there when an objective names what they say, in a parameter group of their own. Into heads of tokens the hidden
states go without gradient, so that a head learns and the model does not learn for it.

The reference has no heads: its token weights come from its activations, without parameters (MaPO's masks).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from diffpref.core.errors import ModelError
from diffpref.core.files import write_atomic

__all__ = ["FILE", "HEADS", "Heads", "activation_weights", "load_heads", "save_heads"]

HEADS: Mapping[str, str] = {
    "token_value": "value",
    "token_weight": "mask",
    "token_kl_weight": "mask",
    "score": "row",
    "scores": "row",
    "log_std": "row",
    "logits": "row",
    "embedding": "row",
}
"""What a head says -> the kind of head."""
SIZED = frozenset({"logits", "embedding", "scores"})
"""Heads of as many numbers as ``adapter.head_size``, or as ``data.aspects``."""
FILE = "heads.safetensors"


class Heads(nn.Module):
    """Heads by what they say.

    A value head is a linear layer on the last hidden state, all zeros at the start (OREO). A mask head has a linear
    layer on each of the hidden states, whose positive parts are averaged over layers (SparsePO); at the start every
    weight is 1, which is TDPO, and exact zeros are learnt. A head of rows is a linear layer on the last hidden state of
    an answer's last token, all zeros at the start: a score, the logits of a degree (SPO), an embedding (GPM). It is the
    only one through which the model learns too.

    Args:
        width: of the hidden states.
        layers: how many there are of a token.
        says: of `HEADS`.
        size: numbers of a row's logits or embedding.
    """

    def __init__(self, width: int, layers: int, says: frozenset[str], size: int = 1) -> None:
        super().__init__()
        self.width, self.layers, self.says, self.size = width, layers, says, size
        self.parts = nn.ParameterDict()
        for name in sorted(says):
            count = layers if HEADS[name] == "mask" else size if name in SIZED else 1
            start = torch.zeros(count, width)
            if name == "embedding":  # at zero neither of two embeddings, which are multiplied, would move the other
                start = torch.eye(count, width)
            self.parts[f"{name}_weight"] = nn.Parameter(start)
            self.parts[f"{name}_bias"] = nn.Parameter(torch.full((count,), float(HEADS[name] == "mask")))

    @property
    def needs_layers(self) -> bool:
        """Whether the hidden states of every layer are read."""
        return any(HEADS[name] == "mask" for name in self.says)

    @property
    def needs_ends(self) -> bool:
        """Whether the hidden states of last tokens are read."""
        return any(HEADS[name] == "row" for name in self.says)

    def forward(self, last: Tensor, layers: Tensor | None = None, ends: Tensor | None = None) -> dict[str, Tensor]:
        """Return (M,) numbers of tokens, and (N,) or (N, size) of rows, by name.

        Args:
            last: (M, D) hidden states before the head over the vocabulary.
            layers: (M, L, D) hidden states of every layer, where `needs_layers`.
            ends: (N, D) hidden states of the last tokens of rows, where `needs_ends`.
        """
        found = {}
        for name in sorted(self.says):
            weight, bias = self.parts[f"{name}_weight"], self.parts[f"{name}_bias"]
            if HEADS[name] == "row" and ends is not None:
                said = ends.to(weight.dtype) @ weight.t() + bias
                found[name] = said if name in SIZED else said[:, 0]
            elif HEADS[name] == "value":
                found[name] = last.detach().to(weight.dtype) @ weight[0] + bias[0]
            elif HEADS[name] == "mask" and layers is not None:
                scores = (layers.detach().to(weight.dtype) * weight).sum(dim=-1) + bias
                found[name] = scores.relu().mean(dim=-1)
        return found


def activation_weights(layers: Tensor, row: Tensor, num_rows: int) -> Tensor:
    """Return (M,) weights in [0, 1] from activations alone: MaPO's masks.

    The mean over a layer's features, standardised over the tokens of each answer, is averaged over layers and brought
    to [0, 1] within the answer; an answer whose tokens are all alike gets ones.

    Args:
        layers: (M, L, D) hidden states of every layer.
        row: (M,) the answer of each token.
        num_rows: how many answers.
    """
    means = layers.detach().float().mean(dim=-1)  # (M, L)
    count = torch.zeros(num_rows, device=row.device).index_add_(0, row, torch.ones_like(row, dtype=torch.float32))
    count = count.clamp(min=1).unsqueeze(1)
    zeros = means.new_zeros(num_rows, means.shape[1])
    centre = zeros.index_add(0, row, means) / count
    spread = (zeros.index_add(0, row, (means - centre[row]).square()) / count).sqrt()
    score = ((means - centre[row]) / spread[row].clamp(min=1e-6)).mean(dim=1)
    low = score.new_full((num_rows,), torch.inf).scatter_reduce(0, row, score, "amin")
    high = score.new_full((num_rows,), -torch.inf).scatter_reduce(0, row, score, "amax")
    width = (high - low)[row]
    return torch.where(width > 0, (score - low[row]) / torch.where(width > 0, width, 1.0), 1.0)


def save_heads(heads: Heads, folder: Path) -> None:
    """Write heads and their shape into a folder."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    shape = {"width": heads.width, "layers": heads.layers, "says": sorted(heads.says), "size": heads.size}
    write_atomic(folder / "heads.json", json.dumps(shape, sort_keys=True) + "\n")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(heads.state_dict().items())}
    write_atomic(folder / FILE, save(tensors, {"format": "pt"}))


def load_heads(folder: str | Path) -> Heads:
    """Read what `save_heads` wrote.

    Raises:
        ModelError: there are no heads, or they are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        shape = json.loads((Path(folder) / "heads.json").read_text(encoding="utf-8"))
        heads = Heads(int(shape["width"]), int(shape["layers"]), frozenset(shape["says"]), int(shape["size"]))
        heads.load_state_dict(load_file(Path(folder) / FILE))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: holds no heads that can be loaded ({str(error).splitlines()[0][:200]})") from error
    return heads
