"""Train the two CLIP text encoders of the bundled SDXL pipeline, each with a small tokenizer of its own.

Run ``python -m diffpref.pretraining.text --output runs/pretraining/text``. An untrained encoder tells a denoiser little
about word order. So each is warmed up until five linear heads (both colours, both shapes, the relation) read the
caption from the two things that SDXL uses: the last token of the last-but-one layer, and the pooled projection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffpref.core.files import write_json
from diffpref.core.randomness import Random
from diffpref.pretraining.loop import Loop
from diffpref.shapes.grammar import COLOURS, RELATIONS, SHAPES, SPLITS, Caption, captions

__all__ = ["MAX_TOKENS", "build", "build_tokenizer", "main"]

MAX_TOKENS = 16
WIDTH = 64
BATCH = 128
HEADS = {"first_colour": 6, "first_shape": 3, "relation": 4, "second_colour": 6, "second_shape": 3}


def build_tokenizer(sentences: Iterable[str], pad_token: str) -> CLIPTokenizer:
    """Return a byte-pair tokenizer in which each word of the sentences is one token; other text falls into bytes."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=end))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=1000, min_frequency=1, end_of_word_suffix="</w>", initial_alphabet=letters, show_progress=False
    )
    learner.train_from_iterator(sentences, trainer)
    learned = learner.get_vocab()
    ordered = sorted(learned, key=learned.__getitem__)
    closing = [f"{letter}</w>" for letter in letters if f"{letter}</w>" not in learned]
    # an end token of number 2 would make transformers pool at the largest token instead
    special = [start, end] if pad_token == end else [pad_token, end, start]
    words = [*special, *(w for w in [*ordered, *closing] if w not in special)]
    merges = [tuple(pair) for pair in _merges(learner)]
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)},
        merges=merges,
        pad_token=pad_token,
        model_max_length=MAX_TOKENS,
    )


def _merges(learner: Tokenizer) -> list[Sequence[str]]:
    import json

    merges = json.loads(learner.to_str())["model"]["merges"]
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


def build(kind: type[CLIPTextModel], tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an untrained encoder for a tokenizer."""
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class Readers(nn.Module):
    """Five linear heads on each embedding: what a denoiser could read."""

    def __init__(self, num_embeddings: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in HEADS.items()}) for _ in range(num_embeddings)
        )

    def forward(self, embeddings: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Return for each embedding (N, D) the logits of each fact, (N, classes)."""
        return [
            {name: head(embedding) for name, head in cast(nn.ModuleDict, heads).items()}
            for heads, embedding in zip(self.heads, embeddings, strict=True)
        ]


def labels(batch: Sequence[Caption]) -> dict[str, Tensor]:
    """Return the index of each fact, (N,) int64."""
    colours, shapes = list(COLOURS), list(SHAPES)
    return {
        "first_colour": torch.tensor([colours.index(c.first.colour) for c in batch]),
        "first_shape": torch.tensor([shapes.index(c.first.shape) for c in batch]),
        "relation": torch.tensor([RELATIONS.index(c.relation) for c in batch]),
        "second_colour": torch.tensor([colours.index(c.second.colour) for c in batch]),
        "second_shape": torch.tensor([shapes.index(c.second.shape) for c in batch]),
    }


def embed(model: CLIPTextModel, tokenizer: CLIPTokenizer, batch: Sequence[Caption], device: str) -> list[Tensor]:
    """Return what SDXL uses: the end token of the last-but-one layer (N, D) and, if there is one, the projection."""
    ids = tokenizer(
        [str(c) for c in batch], padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    ).input_ids.to(device)
    output = model(ids, output_hidden_states=True)
    end = (ids == tokenizer.eos_token_id).int().argmax(1)
    hidden = output.hidden_states[-2][torch.arange(len(batch)), end]
    return [hidden, output.text_embeds] if hasattr(output, "text_embeds") else [hidden]


@torch.no_grad()
def readable(model: CLIPTextModel, tokenizer: CLIPTokenizer, readers: Readers, split: str, device: str) -> float:
    """Return the share of a split's captions that every embedding's heads read without a mistake."""
    batch = captions(split)
    truth = {name: value.to(device) for name, value in labels(batch).items()}
    answers = readers(embed(model, tokenizer, batch, device))
    right = [answer[name].argmax(1) == truth[name] for answer in answers for name in HEADS]
    return torch.stack(right).all(0).float().mean().item()


def main(output: Path, steps: int = 1500, seed: int = 0, device: str = "cpu") -> None:
    """Train both encoders and write ``tokenizer text_encoder tokenizer_2 text_encoder_2`` to ``output/model``.

    Args:
        output: working folder; a run that finds checkpoints there goes on from them.
        steps: updates of 128 captions for each encoder.
        seed: seed of the weights and of every draw.
        device: torch device.
    """
    random, measured = Random(seed), {}
    sentences = [str(caption) for split in SPLITS for caption in captions(split)]
    parts = {"": (CLIPTextModel, "<|endoftext|>"), "_2": (CLIPTextModelWithProjection, "!")}
    for suffix, (kind, pad_token) in parts.items():
        torch.manual_seed(seed + len(suffix))
        tokenizer = build_tokenizer(sentences, pad_token)
        model = build(kind, tokenizer).to(device)
        readers = Readers(2 if suffix else 1).to(device)
        loop = Loop(
            output / f"text_encoder{suffix}", {"model": model, "readers": readers}, steps=steps, learning_rate=2e-3
        )
        for step in loop:
            drawn = random.numpy("captions", suffix, step).integers(len(captions("seen")), size=BATCH)
            batch = [captions("seen")[i] for i in drawn]
            truth = {name: value.to(device) for name, value in labels(batch).items()}
            answers = readers(embed(model, tokenizer, batch, device))
            losses = [functional.cross_entropy(a[name], truth[name]) for a in answers for name in HEADS]
            loop.update(torch.stack(losses).mean())
        model.eval()
        for split in SPLITS:
            name = f"captions read without a mistake, text_encoder{suffix}, {split}"
            measured[name] = readable(model, tokenizer, readers, split, device)
        model.save_pretrained(output / "model" / f"text_encoder{suffix}")
        tokenizer.save_pretrained(output / "model" / f"tokenizer{suffix}")
    write_json(output / "model" / "measured.json", measured)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
