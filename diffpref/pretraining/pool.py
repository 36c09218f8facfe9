"""Encoded scenes with true and mistaken captions, drawn from by step: what the bundled denoisers are trained on.

The base is to *know how, but not always do it*: in a part of the run a stated share of the captions is wrong in one
fact, as captions from the web are. That is the headroom that preferences can turn into right pictures. The captions of
the splits ``unseen`` and ``held_out`` never appear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from diffpref.core.randomness import Random
from diffpref.pretraining.scenes import scene_batch, to_tensor
from diffpref.shapes.grammar import COLOURS, RELATIONS, SHAPES, Caption, captions

__all__ = ["Scenes", "mistake"]

EMPTY_SHARE = 0.1
CHUNK = 115  # captions whose pictures are encoded at once


def mistake(caption: Caption, random: np.random.Generator) -> Caption:
    """Return the caption with one fact changed: a colour, a shape or the relation."""
    which = random.integers(5)
    if which == 4:
        return replace(caption, relation=str(random.choice([r for r in RELATIONS if r != caption.relation])))
    side = "first" if which < 2 else "second"
    thing = getattr(caption, side)
    field, words = ("colour", list(COLOURS)) if which % 2 else ("shape", list(SHAPES))
    word = str(random.choice([w for w in words if w != getattr(thing, field)]))
    return replace(caption, **{side: replace(thing, **{field: word})})


class Scenes:
    """A pool of encoded scenes and captions to draw batches from.

    Args:
        encode_pictures: (N, 3, 64, 64) in [-1, 1] -> (N, C, H, W) scaled latents.
        encode_sentences: N texts -> tensors of N rows each.
        random: of the run.
        per_caption: how many pictures of each caption are drawn.
        batch_size: scenes of a step.
    """

    def __init__(
        self,
        encode_pictures: Callable[[Tensor], Tensor],
        encode_sentences: Callable[[Sequence[str]], tuple[Tensor, ...]],
        random: Random,
        per_caption: int,
        batch_size: int,
    ) -> None:
        self.random, self.batch_size = random, batch_size
        known = captions("seen")
        self.shown: list[Caption] = []
        encoded: list[Tensor] = []
        for visit in range(per_caption):
            for start in range(0, len(known), CHUNK):
                part = known[start : start + CHUNK]
                pictures = [scene_batch([c], 1, random, "pool", visit, start + i)[1] for i, c in enumerate(part)]
                with torch.no_grad():
                    encoded.append(encode_pictures(to_tensor(np.concatenate(pictures))))
                self.shown.extend(part)
        self.latents = torch.cat(encoded)
        generator = random.numpy("mistakes")
        self.wrong = [mistake(caption, generator) for caption in self.shown]
        sentences = sorted({str(c) for c in [*self.shown, *self.wrong]})
        self.number = {sentence: i for i, sentence in enumerate([*sentences, ""])}
        with torch.no_grad():
            self.texts = encode_sentences(list(self.number))

    def batch(self, step: int, wrong_share: float) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the latents (N, C, H, W) of a step and what the encoders say of its captions."""
        generator, size = self.random.numpy("batch", step), self.batch_size
        rows = generator.integers(len(self.shown), size=size)
        wrong = generator.random(size) < wrong_share
        empty = generator.random(size) < EMPTY_SHARE
        sentences = [str(self.wrong[r] if w else self.shown[r]) for r, w in zip(rows, wrong, strict=True)]
        numbers = [self.number["" if e else s] for s, e in zip(sentences, empty, strict=True)]
        return self.latents[rows], tuple(tensor[numbers] for tensor in self.texts)
