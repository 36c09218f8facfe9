"""Teach the text encoder of the video pipeline to tell the facts of its captions before the denoiser is trained.

`diffpref.pretraining.video` begins with single frames, which show no motion. An encoder that is trained along with the
denoiser unlearns there what "left" and "quickly" mean: after 2,500 updates left and right were a hundredth as far apart
as two colours. So the encoder is warmed up until four linear heads read colour, shape, direction and speed from its end
token, and is frozen then.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from diffpref.core.randomness import Random
from diffpref.pretraining.loop import Loop
from diffpref.pretraining.text import MAX_TOKENS, WIDTH, build
from diffpref.shapes.grammar import COLOURS, SHAPES
from diffpref.shapes.motion import DIRECTIONS, SPEEDS, MovingCaption, moving_captions

__all__ = ["warm_up"]

BATCH = 64
FACTS = {"colour": list(COLOURS), "shape": list(SHAPES), "direction": list(DIRECTIONS), "speed": list(SPEEDS)}


def warm_up(
    output: Path, tokenizer: CLIPTokenizer, random: Random, steps: int, learning_rate: float = 2e-3
) -> tuple[CLIPTextModel, float]:
    """Train an encoder on captions of the split ``seen``.

    Args:
        output: working folder; a run that finds a checkpoint there goes on from it.
        tokenizer: of the captions.
        random: of the run.
        steps: updates of 64 captions.
        learning_rate: peak of the cycle.

    Returns:
        The encoder, frozen, and the share of the captions ``unseen`` that the heads read without a mistake.
    """
    text = build(CLIPTextModel, tokenizer)
    heads = nn.ModuleDict({fact: nn.Linear(WIDTH, len(words)) for fact, words in FACTS.items()})
    loop, known = Loop(output, {"text": text, "heads": heads}, steps=steps, learning_rate=learning_rate), "seen"
    for step in loop:
        drawn = random.numpy("captions of the text", step).integers(len(moving_captions(known)), size=BATCH)
        batch = [moving_captions(known)[row] for row in drawn]
        told, truth = _embed(text, tokenizer, batch), _labels(batch)
        loop.update(torch.stack([functional.cross_entropy(heads[f](told), truth[f]) for f in FACTS]).mean())
    text.requires_grad_(False).eval()
    with torch.no_grad():
        batch = list(moving_captions("unseen"))
        told, truth = _embed(text, tokenizer, batch), _labels(batch)
        right = torch.stack([heads[fact](told).argmax(1) == truth[fact] for fact in FACTS]).all(0)
    return text, float(right.float().mean())


def _labels(batch: Sequence[MovingCaption]) -> dict[str, Tensor]:
    said = [(c.thing.colour, c.thing.shape, c.direction, c.speed) for c in batch]
    return {fact: torch.tensor([words.index(one[k]) for one in said]) for k, (fact, words) in enumerate(FACTS.items())}


def _embed(text: CLIPTextModel, tokenizer: CLIPTokenizer, batch: Sequence[MovingCaption]) -> Tensor:
    """Return the end token of the last layer, (N, 64)."""
    sentences = [str(caption) for caption in batch]
    ids = tokenizer(sentences, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids
    end = (ids == tokenizer.eos_token_id).int().argmax(1)
    return text(ids).last_hidden_state[torch.arange(len(batch)), end]
