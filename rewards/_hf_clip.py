"""A transformers ``CLIPModel`` as a dual encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from diffpref.core.errors import ModelError
from diffpref.rewards._dual_encoder import DualEncoder, Framing
from diffpref.rewards._weights import UNREADABLE, Precision, check_vocabulary, first_line, refuse_pickle

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPModel, PreTrainedTokenizerBase

__all__ = ["config_of", "encoder_of", "image_embeds", "load_hf_clip", "text_embeds"]


def _embeds(output: Any) -> Tensor:
    """transformers 5 answers with an object that holds the projected embedding, 4 with the embedding itself."""
    embeds: Tensor = getattr(output, "pooler_output", output)
    return embeds


def image_embeds(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Return (N, D) projected embeddings, not normalised, of (N, 3, S, S) normalised pixels."""
    return _embeds(model.get_image_features(pixel_values=pixels.to(model.device, model.dtype)))


def text_embeds(model: CLIPModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return (N, D) projected embeddings, not normalised, of (N, T) tokens."""
    device = model.device
    return _embeds(model.get_text_features(input_ids=input_ids.to(device), attention_mask=attention_mask.to(device)))


def encoder_of(model: CLIPModel, tokenizer: PreTrainedTokenizerBase, processor: CLIPImageProcessor) -> DualEncoder:
    """Return a loaded model, with its tokenizer and image processor, as a dual encoder."""
    max_length = model.text_model.embeddings.position_embedding.num_embeddings

    def encode_prompts(prompts: list[str]) -> Tensor:
        tokens = tokenizer(prompts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        return text_embeds(model, tokens.input_ids, tokens.attention_mask)

    def preprocess(images: list[Image.Image]) -> Tensor:
        pixels: Tensor = processor(images=images, return_tensors="pt").pixel_values
        return pixels

    return DualEncoder(
        encode_images=lambda pixels: image_embeds(model, pixels),
        encode_prompts=encode_prompts,
        preprocess=preprocess,
        framing=Framing(processor.crop_size["height"], tuple(processor.image_mean), tuple(processor.image_std)),
        logit_scale=float(model.logit_scale.detach().float().exp()),
    )


def config_of(config_class: str, processor_class: Any, path: str) -> tuple[Any, Any]:
    """Return the config and the image processor of a model of two towers.

    Args:
        config_class: name of a class of transformers.
        processor_class: of transformers.
        path: folder or hub id.

    Raises:
        ModelError: there are none.
    """
    import transformers

    try:
        return getattr(transformers, config_class).from_pretrained(path), processor_class.from_pretrained(path)
    except UNREADABLE as error:
        raise ModelError(f"{path}: no {config_class} and image processor could be read: {first_line(error)}") from error


def load_hf_clip(
    path: str, *, processor: str | None, device: str, precision: Precision, allow_pickle: bool
) -> tuple[DualEncoder, str]:
    """Load a model from a folder or the hub.

    Args:
        path: folder or hub id.
        processor: folder or hub id of the tokenizer and the image processor; None: the model's own.
        device: where it runs.
        precision: of the networks.
        allow_pickle: accept weights that only a pickle holds.

    Returns:
        the encoder, and the commit of a hub id (``""`` for a folder).

    Raises:
        ModelError: not a CLIP model, or no weights that may be loaded.
    """
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    if Path(path).is_dir():
        refuse_pickle(Path(path), allow_pickle)
    try:
        model, loaded = CLIPModel.from_pretrained(
            path,
            use_safetensors=None if allow_pickle else True,
            dtype=getattr(torch, precision),
            output_loading_info=True,
        )
        own = processor or path
        tokenizer, images = CLIPTokenizer.from_pretrained(own), CLIPImageProcessor.from_pretrained(own)
    except UNREADABLE as error:
        raise ModelError(
            f"{path}: no CLIP model with tokenizer and image processor could be loaded: {first_line(error)}"
        ) from error
    if missing := sorted(loaded["missing_keys"]):  # transformers would draw these at random
        raise ModelError(f"{path} lacks {len(missing)} weights of a CLIP model, such as {missing[0]}")
    check_vocabulary(own, len(tokenizer), model.text_model.embeddings.token_embedding.num_embeddings)
    model.eval().requires_grad_(False).to(device)
    return encoder_of(model, tokenizer, images), getattr(model.config, "_commit_hash", None) or ""
