"""The two towers of a CLIP model of transformers: how they are loaded, fed and read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from diffpref.core.errors import ModelError
from diffpref.models.loading import check_vocabulary, freeze, load_component, load_settings

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPModel, PreTrainedTokenizerBase

__all__ = ["Towers", "image_features", "load_network", "load_words", "read_settings", "text_features"]


@dataclass
class Towers:
    """What turns pictures and prompts into tensors.

    Args:
        tokenizer: of the text tower.
        processor: of pictures.
        length: tokens that the text tower reads; longer prompts are cut, with their end-of-text token kept.
        model: the encoders, frozen, where they were asked for.
    """

    tokenizer: PreTrainedTokenizerBase
    processor: CLIPImageProcessor
    length: int
    model: CLIPModel | None = None

    def pixels(self, items: Sequence[Sequence[Image.Image]]) -> Tensor:
        """Return (N, F, 3, S, S) normalised pixels of N items of F frames each."""
        flat = [frame for item in items for frame in item]
        pixels: Tensor = self.processor(images=flat, return_tensors="pt").pixel_values
        return pixels.unflatten(0, (len(items), -1))

    def tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask, (N, T) int64 each, padded to the whole length so that a row is a function of its prompt.

        The tower is causal and pools at the end-of-text token, so that padding is never read.
        """
        told = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        return told.input_ids, told.attention_mask


def read_settings(path: str, revision: str | None) -> dict[str, Any]:
    """Return the config of a CLIP model, without loading it.

    Raises:
        ModelError: there is none, or it is another model's.
    """
    settings = load_settings(path, "", "config.json", revision=revision)
    if settings.get("model_type") != "clip" or "projection_dim" not in settings:
        raise ModelError(f"model.path: {path} holds a '{settings.get('model_type', 'nameless')}', not a CLIP model")
    return settings


def load_network(
    path: str,
    *,
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    variant: str | None = None,
    allow_pickle: bool = False,
) -> CLIPModel:
    """Return both towers, frozen.

    Raises:
        ModelError: nothing that can be loaded safely lies there.
    """
    from transformers import CLIPModel

    options: dict[str, Any] = {"revision": revision, "variant": variant}
    frozen: CLIPModel = freeze(load_component(CLIPModel, path, "", allow_pickle=allow_pickle, dtype=dtype, **options))
    return frozen


def load_words(path: str, revision: str | None = None) -> Towers:
    """Return tokenizer and image processor.

    Raises:
        ModelError: a part is missing, or the tokenizer is another model's.
    """
    from transformers import CLIPImageProcessor, CLIPTokenizer

    text = read_settings(path, revision)["text_config"]
    tokenizer = load_component(CLIPTokenizer, path, "", revision=revision)
    processor = load_component(CLIPImageProcessor, path, "", revision=revision)
    check_vocabulary(path, "tokenizer", len(tokenizer), int(text.get("vocab_size", 49408)))
    return Towers(tokenizer, processor, int(text.get("max_position_embeddings", 77)))


def _embeds(output: Any) -> Tensor:
    """transformers 5 answers with an object that holds the projected embedding, 4 with the embedding itself."""
    embeds: Tensor = getattr(output, "pooler_output", output)
    return embeds


def image_features(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Return (N, D) float32 features of length 1 of (N, F, 3, S, S) pixels: the mean direction of an item's frames."""
    embeds = _embeds(model.get_image_features(pixel_values=pixels.flatten(0, 1).to(model.dtype)))
    frames = normalize(embeds.float(), dim=-1).unflatten(0, pixels.shape[:2])
    return frames[:, 0] if frames.shape[1] == 1 else normalize(frames.mean(dim=1), dim=-1)


def text_features(model: CLIPModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Return (N, D) float32 features of length 1 of (N, T) tokens; equal prompts run once."""
    told, rows = torch.unique(torch.stack([ids, mask], dim=1), dim=0, return_inverse=True)
    embeds = _embeds(model.get_text_features(input_ids=told[:, 0], attention_mask=told[:, 1]))
    return normalize(embeds.float(), dim=-1)[rows]
