"""Heads of reward models: numbers from the features of a picture and its prompt.

Features come normalised to a root mean square of 1, whatever their width, so that one learning rate fits all. Heads
run in float32, also where the towers before them do not.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffpref.core.errors import ConfigError, ModelError
from diffpref.core.files import write_atomic
from diffpref.core.randomness import Random

__all__ = ["FILE", "SAYS", "HeadShape", "RewardHead", "load_reward_head", "save_reward_head"]

SAYS = ("score", "scores", "log_std", "embedding")
"""What a head may say of a picture: one score, one for each aspect, the logarithm of the score's deviation, an
embedding."""
FILE = "reward_head.safetensors"
SHAPE = "reward_head.json"


@dataclass(frozen=True)
class HeadShape:
    """What a head is made of.

    Args:
        width: of the features of a picture, and of a prompt.
        says: of `SAYS`, in that order.
        reads: of ``"image" "text" "product"``.
        hidden: widths of hidden layers; none: a linear head.
        activation: ``"relu"`` or ``"none"`` between layers.
        sizes: how many numbers each of ``says`` is; 1 for a score.
    """

    width: int
    says: tuple[str, ...]
    reads: tuple[str, ...] = ("image", "text", "product")
    hidden: tuple[int, ...] = ()
    activation: str = "relu"
    sizes: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, width: int, wanted: frozenset[str], reads: Sequence[str], hidden: Sequence[int], activation: str, size: int
    ) -> HeadShape:
        """Return the shape of a head that says what is wanted.

        Args:
            width: of features.
            wanted: of `SAYS`.
            reads: features.
            hidden: widths.
            activation: between layers.
            size: numbers of ``scores`` or of an ``embedding``.
        """
        says = tuple(name for name in SAYS if name in wanted)
        sizes = tuple(size if name in ("scores", "embedding") else 1 for name in says)
        return cls(width, says, tuple(reads), tuple(hidden), activation, sizes)


class RewardHead(nn.Module):
    """A linear map or a small network.

    The last layer is zeros at the start, so that every pair is a coin toss; of an embedding it is drawn, because two
    embeddings of zeros would never move each other.

    Args:
        shape: of it.
        random: draws the start.
    """

    def __init__(self, shape: HeadShape, random: Random) -> None:
        super().__init__()
        self.shape = shape
        widths = [shape.width * len(shape.reads), *shape.hidden, sum(shape.sizes)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        for number, (layer, width) in enumerate(zip(self.layers, widths, strict=False)):
            bound = 1 / math.sqrt(width)
            for name, parameter in layer.named_parameters():
                drawn = torch.rand(parameter.shape, generator=random.generator("reward head", number, name))
                parameter.data = (2 * drawn - 1) * bound
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            for name, rows in self._slices():
                if name != "embedding":
                    last.weight[rows].zero_()
                last.bias[rows].zero_()

    def _slices(self) -> list[tuple[str, slice]]:
        found, start = [], 0
        for name, size in zip(self.shape.says, self.shape.sizes, strict=True):
            found.append((name, slice(start, start + size)))
            start += size
        return found

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Return ``score`` and ``log_std`` (N,), ``scores`` (N, A) and ``embedding`` (N, E), what of it is said.

        Args:
            image: (N, D) features; their length does not matter.
            text: (N, D) features of the prompts.
        """
        with torch.autocast(image.device.type, enabled=False):
            size = math.sqrt(self.shape.width)
            image, text = normalize(image.float(), dim=-1) * size, normalize(text.float(), dim=-1) * size
            told = {"image": image, "text": text, "product": image * text}
            values = torch.cat([told[name] for name in self.shape.reads], dim=-1)
            for number, layer in enumerate(self.layers):
                if number and self.shape.activation == "relu":
                    values = values.relu()
                values = layer(values)
        said = {name: values[:, rows] for name, rows in self._slices()}
        return {name: value[:, 0] if name in ("score", "log_std") else value for name, value in said.items()}


def save_reward_head(head: RewardHead, folder: Path) -> None:
    """Write a head and its shape into a folder."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(head.state_dict().items())}
    write_atomic(folder / SHAPE, json.dumps(asdict(head.shape), sort_keys=True) + "\n")
    write_atomic(folder / FILE, save(tensors, {"format": "pt"}))


def load_reward_head(folder: str | Path, expected: HeadShape | None = None) -> RewardHead:
    """Read what `save_reward_head` wrote.

    Args:
        folder: that holds it.
        expected: the shape that it must have.

    Raises:
        ModelError: there is no head, or it is damaged.
        ConfigError: it has another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        told = json.loads((Path(folder) / SHAPE).read_text(encoding="utf-8"))
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in told.items()}
        shape = HeadShape(**values)
        head = RewardHead(shape, Random(0))
        head.load_state_dict(load_file(Path(folder) / FILE))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ModelError(f"{folder}: holds no reward head that can be loaded ({reason})") from error
    if expected is not None and shape != expected:
        raise ConfigError(f"adapter.heads: {folder} holds a head of another shape: {shape}, and {expected} is asked")
    return head
