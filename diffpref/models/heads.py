"""Small heads on a language model's hidden states, trained with it: a value of each token, and weights of tokens.

They are there when an objective names what they say, in a parameter group of their own. The hidden states go in
without gradient, so that a head learns and the model does not learn for it.

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

HEADS: Mapping[str, str] = {"token_value": "value", "token_weight": "mask", "token_kl_weight": "mask"}
"""What a head says -> the kind of head."""
FILE = "heads.safetensors"


class Heads(nn.Module):
    """Heads by what they say.

    A value head is a linear layer on the last hidden state, all zeros at the start (OREO). A mask head has a linear
    layer on each of the hidden states, whose positive parts are averaged over layers (SparsePO); at the start every
    weight is 1, which is TDPO, and exact zeros are learnt.

    Args:
        width: of the hidden states.
        layers: how many there are of a token.
        says: of `HEADS`.
    """

    def __init__(self, width: int, layers: int, says: frozenset[str]) -> None:
        super().__init__()
        self.width, self.layers, self.says = width, layers, says
        self.parts = nn.ParameterDict()
        for name in sorted(says):
            count = 1 if HEADS[name] == "value" else layers
            self.parts[f"{name}_weight"] = nn.Parameter(torch.zeros(count, width))
            self.parts[f"{name}_bias"] = nn.Parameter(torch.full((count,), float(HEADS[name] == "mask")))

    @property
    def needs_layers(self) -> bool:
        """Whether the hidden states of every layer are read."""
        return any(HEADS[name] == "mask" for name in self.says)

    def forward(self, last: Tensor, layers: Tensor | None = None) -> dict[str, Tensor]:
        """Return (M,) numbers by name.

        Args:
            last: (M, D) hidden states before the head over the vocabulary.
            layers: (M, L, D) hidden states of every layer, where `needs_layers`.
        """
        found = {}
        for name in sorted(self.says):
            weight, bias = self.parts[f"{name}_weight"], self.parts[f"{name}_bias"]
            if HEADS[name] == "value":
                found[name] = last.detach().to(weight.dtype) @ weight[0] + bias[0]
            elif layers is not None:
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
    shape = {"width": heads.width, "layers": heads.layers, "says": sorted(heads.says)}
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
        heads = Heads(int(shape["width"]), int(shape["layers"]), frozenset(shape["says"]))
        heads.load_state_dict(load_file(Path(folder) / FILE))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: holds no heads that can be loaded ({str(error).splitlines()[0][:200]})") from error
    return heads
