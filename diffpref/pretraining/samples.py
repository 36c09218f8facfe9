"""Pictures that the bundled pipeline draws, with what the oracle says of them: the scorers' training and test data.

Run ``python -m diffpref.pretraining.samples --model runs/pretraining/unet/model --output runs/pretraining/samples``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from diffpref.core.contracts import Reward
from diffpref.core.files import publish_folder, write_atomic
from diffpref.core.randomness import hash_key
from diffpref.models import load_family
from diffpref.models.roles import NetworkRole
from diffpref.sampling import Sampler, SamplerSettings
from diffpref.shapes.grammar import Caption, Thing, captions
from diffpref.shapes.oracle import look, num_facts_right, relation

__all__ = ["Pool", "draw_pool", "load_pool", "pair_agreement"]


@dataclass(frozen=True)
class Pool:
    """N pictures, candidates of one caption next to each other.

    Args:
        pictures: (N, 64, 64, 3) uint8.
        captions: what each was drawn for.
        num_right: (N,) how many of the six facts hold.
        per_caption: candidates of each caption.
    """

    pictures: np.ndarray
    captions: list[Caption]
    num_right: np.ndarray
    per_caption: int

    @property
    def _read(self) -> list[Caption | None]:
        return [read_caption(picture) for picture in self.pictures]

    @property
    def legible(self) -> np.ndarray:
        """(M,) the rows in which the oracle reads two known objects."""
        return np.array([i for i, reading in enumerate(self._read) if reading is not None])

    @property
    def readings(self) -> list[Caption]:
        """The captions that the oracle reads there."""
        return [reading for reading in self._read if reading is not None]

    def pairs(self) -> list[tuple[int, int]]:
        """Return all pairs of rows of one caption."""
        starts = range(0, len(self.captions), self.per_caption)
        return [pair for start in starts for pair in combinations(range(start, start + self.per_caption), 2)]


def read_caption(picture: np.ndarray) -> Caption | None:
    """Return a caption that holds for a picture with exactly two known, different objects; else None."""
    objects = look(picture)
    if len(objects) != 2 or any(o.colour is None or o.shape is None for o in objects):
        return None
    first, second = objects
    things = [Thing(o.colour or "", o.shape or "") for o in objects]
    return None if things[0] == things[1] else Caption(things[0], relation(first, second), things[1])


def draw_pool(sampler: Sampler, split: str, num_captions: int, per_caption: int, seed: int) -> Pool:
    """Draw candidates for the first captions of a split."""
    shown = [c for c in captions(split)[:num_captions] for _ in range(per_caption)]
    seeds = [hash_key(seed, "pool", split, i) for i in range(len(shown))]
    pictures = np.stack(sampler([str(c) for c in shown], seeds))
    right = np.array([num_facts_right(p, c) for p, c in zip(pictures, shown, strict=True)])
    return Pool(pictures, shown, right, per_caption)


def load_pool(folder: Path) -> Pool:
    """Read what `main` wrote."""
    tensors = load_file(folder / "pool.safetensors")
    texts = (folder / "captions.txt").read_text(encoding="utf-8").splitlines()
    return Pool(
        tensors["pictures"].numpy(),
        [Caption.parse(text) for text in texts],
        tensors["num_right"].numpy(),
        int(tensors["per_caption"]),
    )


def pair_agreement(reward: Reward, pool: Pool) -> dict[str, float]:
    """Return how often a reward agrees with the oracle on pairs of one caption whose numbers of right facts differ."""
    scores = reward.score(list(pool.pictures), [str(c) for c in pool.captions]).numpy()
    pairs = [(a, b) for a, b in pool.pairs() if pool.num_right[a] != pool.num_right[b]]
    agree = [(scores[a] > scores[b]) == (pool.num_right[a] > pool.num_right[b]) for a, b in pairs]
    return {"agreement with the oracle on sampled pairs": float(np.mean(agree)), "sampled pairs": float(len(pairs))}


def main(
    model: Path,
    output: Path,
    per_caption: int = 4,
    num_captions: int = 460,
    seed: int = 1,
    num_inference_steps: int = 12,
    guidance_scale: float = 1.5,
) -> None:
    """Draw pictures of the splits ``seen`` and ``unseen`` and write ``output/<split>/pool.safetensors``.

    Args:
        model: the pipeline's folder.
        output: where the splits' folders go.
        per_caption: candidates of each caption.
        num_captions: at most so many captions of a split.
        seed: of the run; the demo draws with another.
        num_inference_steps: as in the demo.
        guidance_scale: as in the demo.
    """
    family = load_family("sdxl", str(model))
    settings = SamplerSettings(num_inference_steps, guidance_scale, batch_size=46)
    sampler = Sampler(family, NetworkRole(family, family.network), settings)
    for split in ("seen", "unseen"):
        if (output / split).exists():
            continue
        pool = draw_pool(sampler, split, num_captions, per_caption, seed)
        with publish_folder(output / split) as folder:
            tensors = {
                "pictures": torch.from_numpy(pool.pictures),
                "num_right": torch.from_numpy(pool.num_right),
                "per_caption": torch.tensor(per_caption),
            }
            save_file(tensors, folder / "pool.safetensors")
            write_atomic(folder / "captions.txt", "\n".join(map(str, pool.captions)) + "\n")
        print(f"{split}: {len(pool.captions)} pictures, all six facts right in {np.mean(pool.num_right == 6):.1%}")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
