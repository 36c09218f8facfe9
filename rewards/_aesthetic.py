"""The reward that aesthetic_v2 and aesthetic_v25 are: an affine map of a picture's embedding; no prompt is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from diffpref.core.contracts import Media, RewardInfo
from diffpref.core.errors import ModelError
from diffpref.rewards._affine_head import affine_score
from diffpref.rewards._dual_encoder import Framing, cut
from diffpref.rewards._media import as_pictures, check_lengths
from diffpref.rewards._published import Published
from diffpref.rewards._weights import UNREADABLE, Precision, content_version, first_line, refuse_pickle

__all__ = ["AestheticReward", "PictureEncoder", "aesthetic_version", "load_vision_tower"]


@dataclass(frozen=True)
class PictureEncoder:
    """A model that embeds pictures.

    Args:
        encode: (N, 3, S, S) normalised pixels -> (N, D).
        preprocess: RGB pictures of any size -> (N, 3, S, S) normalised pixels, as the model's own library does it.
        framing: the same for tensors, differentiable.
        width: D.
        version: of its weights.
    """

    encode: Callable[[Tensor], Tensor]
    preprocess: Callable[[list[Image.Image]], Tensor]
    framing: Framing
    width: int
    version: str


class AestheticReward:
    """Scores a picture by an affine map of its normalised embedding.

    Args:
        info: what it says of itself.
        encoder: of pictures.
        weight: (D,) of the map.
        bias: of the map.
        micro_batch: pictures that run at once.
    """

    def __init__(
        self, info: RewardInfo, encoder: PictureEncoder, weight: Tensor, bias: Tensor, micro_batch: int = 16
    ) -> None:
        self._info, self.encoder, self.weight, self.bias, self.micro_batch = info, encoder, weight, bias, micro_batch

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    @torch.no_grad()
    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 on the CPU for N pictures; prompts are counted only.

        Raises:
            ShapeError: not as many prompts as pictures.
            DataError: an item is not a picture.
        """
        check_lengths(self._info.name, media, prompts, metadata)
        result = [torch.zeros(0)]
        for rows in self._rows(len(media)):
            result.append(self._scores(self._framed(media, rows)).cpu())
        return torch.cat(result)

    @torch.no_grad()
    def embed_images(self, media: Sequence[Media]) -> Tensor:
        """Return (N, D) float32 on the CPU, each of norm 1: where the model places N pictures.

        Raises:
            DataError: an item is not a picture.
        """
        result = [torch.zeros(0, self.encoder.width)]
        for rows in self._rows(len(media)):
            embeds = self.encoder.encode(self._framed(media, rows)).float()
            result.append(functional.normalize(embeds, dim=-1).cpu())
        return torch.cat(result)

    def score_tensors(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (N,) float32, differentiable in ``pixels`` (N, 3, H, W) in [0, 1].

        Raises:
            ShapeError: wrong shape, or not as many prompts as pictures.
        """
        check_lengths(self._info.name, pixels, prompts)
        framed = self.encoder.framing(pixels)
        parts = [self._scores(framed[rows]) for rows in self._rows(len(pixels))]
        return torch.cat(parts) if parts else pixels.new_zeros(0, dtype=torch.float32)

    def _rows(self, count: int) -> Iterator[slice]:
        return (slice(start, start + self.micro_batch) for start in range(0, count, self.micro_batch))

    def _framed(self, media: Sequence[Media], rows: slice) -> Tensor:
        pictures = as_pictures(self._info.name, media[rows], rows.start)
        if not self.encoder.framing.squash:
            pictures = [cut(picture) for picture in pictures]
        return self.encoder.preprocess(pictures)

    def _scores(self, pixels: Tensor) -> Tensor:
        return affine_score(self.encoder.encode(pixels).float(), self.weight, self.bias)


def load_vision_tower(
    what: Published, path: str, model_class: Any, config: Any, *, device: str, precision: Precision, allow_pickle: bool
) -> tuple[Any, str]:
    """Load the vision tower out of a transformers model of two towers.

    Args:
        what: the model's files, for messages.
        path: folder or hub id, as `Published.place` returns it.
        model_class: of transformers.
        config: of the tower.
        device: where it runs.
        precision: of the tower.
        allow_pickle: accept weights that only a pickle holds.

    Returns:
        the tower, frozen, and its version.

    Raises:
        ModelError: not such a model, or weights are missing.
    """
    folder = Path(path)
    if folder.exists():
        what.check(folder)
        refuse_pickle(folder, allow_pickle)
    try:
        model, loaded = model_class.from_pretrained(
            path,
            config=config,
            use_safetensors=None if allow_pickle else True,
            dtype=getattr(torch, precision),
            output_loading_info=True,
        )
    except UNREADABLE as error:
        raise ModelError(f"{path}: no {model_class.__name__} could be loaded: {first_line(error)}") from error
    if missing := sorted(loaded["missing_keys"]):  # transformers would draw these at random
        raise ModelError(f"{path} lacks {len(missing)} weights of {model_class.__name__}, such as {missing[0]}")
    model.eval().requires_grad_(False).to(device)
    commit = getattr(model.config, "_commit_hash", None) or ""
    return model, content_version(folder) if folder.is_dir() else f"{path}@{commit[:12]}"


def aesthetic_version(head: Path, encoder: PictureEncoder, precision: Precision) -> str:
    """Return what the numbers follow from: the head's file, the encoder's weights, the precision."""
    content = f"{content_version(head)}{encoder.version}"
    parts = [f"sha256-{hashlib.sha256(content.encode()).hexdigest()[:12]}", precision]
    return "+".join(part for part in parts if part != "float32")
