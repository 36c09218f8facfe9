"""Train the bundled CLIP scorer, a transformers CLIPModel, with hard negatives.

Run ``python -m diffpref.pretraining.clip --text runs/pretraining/text/model --output runs/pretraining/clip``. Its text
tower starts from the pipeline's second text encoder, which reads the captions already.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffpref.core.files import write_json
from diffpref.core.randomness import Random
from diffpref.pretraining.contrast import Pools, clamp_scale, contrast_batch, contrastive_loss
from diffpref.pretraining.loop import Loop
from diffpref.pretraining.samples import load_pool, pair_agreement
from diffpref.shapes.grammar import captions

__all__ = ["build", "main", "normalise", "save"]

BATCH = 96
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def build(text: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    """Return an untrained picture tower beside the trained text tower."""
    tokenizer = CLIPTokenizer.from_pretrained(text / "tokenizer_2")
    encoder = CLIPTextModelWithProjection.from_pretrained(text / "text_encoder_2")
    vision = {
        "image_size": 64,
        "patch_size": 8,
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    config = CLIPConfig(
        text_config=encoder.config.to_dict(), vision_config=vision, projection_dim=encoder.config.projection_dim
    )
    model = CLIPModel(config)
    model.load_state_dict(encoder.state_dict(), strict=False)
    return model, tokenizer


def normalise(pictures: np.ndarray) -> Tensor:
    """Turn (N, H, W, 3) uint8 into what CLIP's processor gives, (N, 3, H, W)."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def save(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write a folder that ``CLIPModel.from_pretrained`` and the rewards load."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(folder)


def main(text: Path, output: Path, samples: Path | None = None, steps: int = 900, seed: int = 0) -> None:
    """Train and write the model folder to ``output/model``.

    Args:
        text: the folder of the tokenizers and text encoders.
        output: working folder; a run that finds a checkpoint there goes on from it.
        samples: pictures of `diffpref.pretraining.samples`: a third of each batch is drawn from those in which the
            oracle can read a caption, and agreement is measured on the others.
        steps: updates of 96 pictures.
        seed: seed of the weights and of every draw.
    """
    random = Random(seed)
    torch.manual_seed(seed)
    model, tokenizer = build(text)
    pools = Pools(captions("seen"))
    if samples is not None:
        pool = load_pool(samples / "seen")
        pools = Pools(captions("seen"), pool.pictures[pool.legible], pool.readings)
    loop = Loop(output, {"model": model}, steps=steps, learning_rate=1e-3, ema_decay=0.99)
    for step in loop:
        batch = contrast_batch(pools, BATCH, random, step)
        tokens = tokenizer(batch.sentences, padding=True, truncation=True, return_tensors="pt")
        result = model(**tokens, pixel_values=normalise(batch.pictures))
        loss, right = contrastive_loss(result.image_embeds, result.text_embeds, model.logit_scale)
        loop.update(loss, beats_hard_negatives=right)
        clamp_scale(model.logit_scale)
    model = loop.averaged["model"].eval()
    save(model, tokenizer, output / "model")
    measured = {"true caption beats six hard negatives, last 100 steps": loop.mean("beats_hard_negatives")}
    if samples is not None:
        from diffpref.rewards import load

        measured |= pair_agreement(load("clip", str(output / "model")), load_pool(samples / "unseen"))
    write_json(output / "model" / "measured.json", measured)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
