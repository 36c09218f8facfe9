"""Train the bundled HPS scorer, an open_clip model: its own towers, seed and pictures, and HPSv2's pair loss.

Run ``python -m diffpref.pretraining.hps --text runs/pretraining/text/model --samples runs/pretraining/hps_samples
--output runs/pretraining/hps`` with pictures that another seed drew. It shares nothing with the PickScore that labels
the demo's pairs but the tokenizer, and so it can judge what that one taught.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP
from torch import Tensor
from transformers import CLIPTokenizer

from diffpref.core.files import write_json
from diffpref.core.randomness import Random
from diffpref.pretraining.clip import MEAN, STD, normalise
from diffpref.pretraining.contrast import Pools, clamp_scale, contrast_batch, contrastive_loss
from diffpref.pretraining.loop import Loop
from diffpref.pretraining.pickscore import preferences
from diffpref.pretraining.samples import load_pool, pair_agreement
from diffpref.pretraining.text import MAX_TOKENS
from diffpref.rewards import hps_pair_loss, load
from diffpref.shapes.grammar import captions
from diffpref.training.state import save_tensors

__all__ = ["build", "configuration", "main"]

BATCH = 96
PAIRS = 48


def configuration(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """Return open_clip's config of the model folder."""
    return {
        "model_cfg": {
            "embed_dim": 64,
            "vision_cfg": {
                "image_size": 64, "patch_size": 8, "width": 96, "layers": 4, "head_width": 24, "mlp_ratio": 2.0,
            },
            "text_cfg": {
                "context_length": MAX_TOKENS, "vocab_size": len(tokenizer), "width": 64, "heads": 4, "layers": 3,
                "mlp_ratio": 2.0, "pool_type": "eos", "eos_id": tokenizer.eos_token_id,
                "pad_id": tokenizer.pad_token_id, "hf_tokenizer_name": ".",
            },
        },
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"},
        "diffpref": {"name": "hps", "version": "shapes-v1"},
    }  # fmt: skip


def build(tokenizer: CLIPTokenizer) -> CLIP:
    """Return an untrained model."""
    return CLIP(**configuration(tokenizer)["model_cfg"])


def _embed(model: CLIP, tokenizer: CLIPTokenizer, pictures: np.ndarray, sentences: list[str]) -> tuple[Tensor, Tensor]:
    tokens = tokenizer(sentences, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return model.encode_image(normalise(pictures)), model.encode_text(tokens.input_ids)


def main(text: Path, samples: Path, output: Path, steps: int = 1300, seed: int = 7, pairs_from: float = 0.7) -> None:
    """Train and write the model folder to ``output/model``.

    Args:
        text: the folder of the tokenizers.
        samples: pictures of `diffpref.pretraining.samples`, drawn with a seed of their own.
        output: working folder; a run that finds a checkpoint there goes on from it.
        steps: updates: pictures against hard negatives, and in the last part preference pairs too.
        seed: seed of the weights and of every draw.
        pairs_from: the share of the run after which preference pairs are trained on.
    """
    random = Random(seed)
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(text / "tokenizer_2")
    model = build(tokenizer)
    pool = load_pool(samples / "seen")
    pools = Pools(captions("seen"), pool.pictures[pool.legible], pool.readings)
    pairs, labels = preferences(pool, 0.0, random)
    decided = labels != 0.5
    pairs, labels = pairs[decided], labels[decided]
    loop = Loop(output, {"model": model}, steps=steps, learning_rate=1e-3, ema_decay=0.99)
    for step in loop:
        batch = contrast_batch(pools, BATCH, random, step)
        images, texts = _embed(model, tokenizer, batch.pictures, batch.sentences)
        loss, right = contrastive_loss(images, texts, model.logit_scale)
        if step >= pairs_from * steps:
            rows = random.numpy("pairs", step).integers(len(pairs), size=PAIRS)
            first, second = pairs[rows].T
            shown = pool.pictures[np.concatenate([first, second])]
            images, texts = _embed(model, tokenizer, shown, [str(pool.captions[row]) for row in first])
            losses = hps_pair_loss(
                text_features=texts,
                first_features=images[:PAIRS],
                second_features=images[PAIRS:],
                preference=torch.from_numpy(labels[rows]).float(),
                logit_scale=model.logit_scale,
            )
            loss = loss + losses.mean()
        loop.update(loss, beats_hard_negatives=right)
        clamp_scale(model.logit_scale)
    folder = output / "model"
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / "open_clip_model.safetensors", loop.averaged["model"].state_dict())
    tokenizer.save_pretrained(folder)
    write_json(folder / "open_clip_config.json", configuration(tokenizer))
    measured = pair_agreement(load("hps", str(folder)), load_pool(samples / "unseen"))
    write_json(folder / "measured.json", measured)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
