"""The reward that image_reward and vp_score are: what BLIP makes of a prompt that has seen its picture, on one axis."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffpref.core.contracts import Media, RewardInfo
from diffpref.core.errors import ModelError
from diffpref.core.files import sha256
from diffpref.rewards._blip import Blip, BlipSizes, affine
from diffpref.rewards._dual_encoder import Framing
from diffpref.rewards._layout import fill
from diffpref.rewards._media import as_pictures, check_lengths
from diffpref.rewards._pickles import read_tensors
from diffpref.rewards._pil_framing import pil_pixels
from diffpref.rewards._published import Published
from diffpref.rewards._tokenizers import load_tokenizer, vocabulary_version
from diffpref.rewards._weights import UNREADABLE, Precision, first_line

__all__ = ["MAX_LENGTH", "TOKENIZER_ID", "BlipReward", "load_blip", "standardised"]

TOKENIZER_ID = "google-bert/bert-base-uncased"
MAX_LENGTH = 35
"""Word pieces that are read of a prompt, with [CLS] and [SEP]; the official code cuts longer ones without a word."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_SPARE = (
    "blip.text_encoder.embeddings.position_ids",  # a buffer of older libraries
    "blip.vision_proj.*",  # heads of BLIP's own pretraining, in the published file and read by nothing
    "blip.text_proj.*",
)


def standardised(output: Tensor, mean: float, std: float) -> Tensor:
    """Return the head's output as its authors report it: ``(output - mean) / std``."""
    return (output - mean) / std


class BlipReward:
    """Scores a picture by an affine map of BLIP's first token.

    Args:
        info: what it says of itself.
        model: the towers; their head is not used, ``weight`` and ``bias`` are.
        tokenizer: of the text tower.
        weight: (D,) float64.
        bias: float64.
        mean: of the head's output, subtracted.
        std: by which it is divided.
        micro_batch: pictures that run at once.
    """

    def __init__(
        self,
        info: RewardInfo,
        model: Blip,
        tokenizer: Any,
        weight: Tensor,
        bias: Tensor,
        *,
        mean: float,
        std: float,
        micro_batch: int = 16,
    ) -> None:
        self._info, self.model, self.tokenizer, self.micro_batch = info, model, tokenizer, micro_batch
        self.framing = Framing(model.sizes.image_size, MEAN, STD)
        token = model.blip["visual_encoder"].cls_token
        assert isinstance(token, Tensor)
        self._device, self._dtype = token.device, token.dtype
        self._weight = weight.float().to(self._device)
        self._bias, self._mean, self._std = float(bias), mean, std

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    @torch.no_grad()
    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 on the CPU for N images and N prompts.

        Raises:
            ShapeError: not as many prompts as images.
            DataError: an item is not an image.
        """
        check_lengths(self._info.name, media, prompts, metadata)
        result = [torch.zeros(0)]
        for rows in self._rows(len(media)):
            pictures = as_pictures(self._info.name, media[rows], rows.start)
            result.append(self._scores(pil_pixels(pictures, self.framing), prompts[rows]).cpu())
        return torch.cat(result)

    def score_tensors(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (N,) float32, differentiable in ``pixels`` (N, 3, H, W) in [0, 1].

        Raises:
            ShapeError: wrong shape, or not as many prompts as pictures.
        """
        check_lengths(self._info.name, pixels, prompts)
        framed = self.framing(pixels)
        parts = [self._scores(framed[rows], prompts[rows]) for rows in self._rows(len(pixels))]
        return torch.cat(parts) if parts else pixels.new_zeros(0, dtype=torch.float32)

    def _rows(self, count: int) -> Iterator[slice]:
        return (slice(start, start + self.micro_batch) for start in range(0, count, self.micro_batch))

    def _scores(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        )
        pixels = pixels.to(self._device, self._dtype)
        features = self.model(pixels, tokens.input_ids.to(self._device), tokens.attention_mask.to(self._device))
        return standardised(functional.linear(features, self._weight) + self._bias, self._mean, self._std)


def load_blip(
    published: Published,
    path: str | None,
    *,
    tokenizer: str | None,
    mean: float,
    std: float,
    device: str,
    precision: Precision,
    micro_batch: int,
    allow_pickle: bool,
    suffix: str = "",
) -> BlipReward:
    """Load a checkpoint of ImageReward's layout.

    Args:
        published: its files: the weights first, then the text tower's configuration.
        path: folder or hub id with these files.
        tokenizer: folder or hub id; None: the folder's own where it has a ``vocab.txt``, else `TOKENIZER_ID`.
        mean: of the head's output.
        std: of the head's output.
        device: where it runs.
        precision: of the towers; the head is always float32.
        micro_batch: pictures that run at once.
        allow_pickle: accept weights that only a pickle holds.
        suffix: of the version, where options change the numbers.

    Raises:
        ModelError: a file is missing or of another layout.
    """
    folder = published.find(path)
    weights, config = published.file(folder, published.files[0]), folder / published.files[1]
    tensors = read_tensors(weights, allow_pickle=allow_pickle)
    try:
        sizes = BlipSizes.of(tensors, json.loads(config.read_text(encoding="utf-8")))
    except UNREADABLE as error:
        raise ModelError(f"{weights}: not the published layout with {config.name}: {first_line(error)}") from error
    with torch.device("meta"):
        model = Blip(sizes)
    fill(model, tensors, weights, dtype=getattr(torch, precision), spare=_SPARE)
    weight, bias = affine(tensors)
    model.mlp = nn.ModuleDict()  # it is that map now
    model.to(device)
    words = tokenizer or (str(folder) if (folder / "vocab.txt").is_file() else TOKENIZER_ID)
    reader = load_tokenizer(words, sizes.vocab_size, bert=True)
    content = f"{sha256(weights)}{sha256(config)}{vocabulary_version(reader)}"
    version = f"sha256-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    info = RewardInfo(
        name=published.reward,
        version="+".join(part for part in (version, suffix, precision) if part not in ("", "float32")),
        licence=published.licence,
        range=(-2.5, 2.5),
        pair_scale=std,
        differentiable=True,
        preprocessing=f"short side {sizes.image_size} bicubic, centre, CLIP mean and std; {MAX_LENGTH} word pieces",
    )
    return BlipReward(info, model, reader, weight, bias, mean=mean, std=std, micro_batch=micro_batch)
