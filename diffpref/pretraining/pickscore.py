"""Train the bundled PickScore: the CLIP scorer, fine-tuned on preference pairs with PickScore's own loss.

Run ``python -m diffpref.pretraining.pickscore --clip runs/pretraining/clip/model --samples runs/pretraining/samples
--output runs/pretraining/pickscore``. The pairs are pictures that the pipeline drew for one caption; the label says
which has more right facts (equal numbers: a tie), and one label in ten is turned round, as people's are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import CLIPModel, CLIPTokenizer

from diffpref.core.files import write_json
from diffpref.core.randomness import Random
from diffpref.objectives.compose import reduce_sums
from diffpref.pretraining.clip import normalise, save
from diffpref.pretraining.contrast import clamp_scale
from diffpref.pretraining.loop import Loop
from diffpref.pretraining.samples import Pool, load_pool, pair_agreement
from diffpref.rewards import load, pickscore_loss

__all__ = ["main", "preferences"]

BATCH = 64
LABEL_NOISE = 0.1


def preferences(pool: Pool, noise: float, random: Random) -> tuple[np.ndarray, np.ndarray]:
    """Return (P, 2) rows of pairs and (P,) labels: 1 where the first has more right facts, 0, or 0.5 for a tie."""
    pairs = np.array(pool.pairs())
    gap = pool.num_right[pairs[:, 0]] - pool.num_right[pairs[:, 1]]
    labels = (np.sign(gap) + 1) / 2
    turned = random.numpy("label noise").random(len(pairs)) < noise
    return pairs, np.where(turned, 1 - labels, labels)


def main(clip: Path, samples: Path, output: Path, steps: int = 600, seed: int = 0) -> None:
    """Fine-tune and write the model folder to ``output/model``.

    Args:
        clip: the CLIP scorer's folder.
        samples: pictures of `diffpref.pretraining.samples`; those of the seen captions are trained on.
        output: working folder; a run that finds a checkpoint there goes on from it.
        steps: updates of 64 pairs.
        seed: seed of the label noise and of the order.
    """
    random = Random(seed)
    model, tokenizer = CLIPModel.from_pretrained(clip), CLIPTokenizer.from_pretrained(clip)
    pool = load_pool(samples / "seen")
    pairs, labels = preferences(pool, LABEL_NOISE, random)
    num_examples = torch.full((BATCH,), float(pool.per_caption * (pool.per_caption - 1) // 2))
    loop = Loop(output, {"model": model}, steps=steps, learning_rate=2e-4, ema_decay=0.99)
    for step in loop:
        rows = random.numpy("pairs", step).integers(len(pairs), size=BATCH)
        first, second = pairs[rows].T
        sentences = [str(pool.captions[row]) for row in first]
        tokens = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
        result = model(**tokens, pixel_values=normalise(pool.pictures[np.concatenate([first, second])]))
        images = result.image_embeds.chunk(2)
        terms = pickscore_loss(
            text_features=result.text_embeds,
            first_features=images[0],
            second_features=images[1],
            preference=torch.from_numpy(labels[rows]).float(),
            num_examples_per_prompt=num_examples,
            logit_scale=model.logit_scale,
        )
        (total, weight) = reduce_sums([(1.0, "pickscore", terms)])[0]
        loop.update(total / weight)
        clamp_scale(model.logit_scale)
    save(loop.averaged["model"].eval(), tokenizer, output / "model")
    measured = pair_agreement(load("pickscore", str(output / "model")), load_pool(samples / "unseen"))
    write_json(output / "model" / "measured.json", measured)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
