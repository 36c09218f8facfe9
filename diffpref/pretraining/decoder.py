"""Train the bundled decoder of the words world, a transformers LlamaForCausalLM with a tokenizer of its own.

Run ``python -m diffpref.pretraining.decoder --output runs/pretraining/decoder``. Like the picture base it is to *know
how, but not always do it*: a stated share of the answers that it learns from have one mistake, and of the loud ones
most have a bad habit besides, so that even its likeliest answer is wrong there. That is the headroom that
preferences can turn into right answers. The instructions of the splits ``unseen`` and ``held_out`` never appear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from diffpref.core.files import write_json
from diffpref.core.randomness import Random
from diffpref.pretraining.loop import Loop
from diffpref.words.grammar import CLOSE, KINDS, LETTERS, ORDERS, WORDS, Instruction, instructions

__all__ = ["MISTAKES", "build", "build_tokenizer", "encode", "habit", "main", "mistake", "taught"]

BATCH = 128
NUM_SEEN = 30_000
MAX_TOKENS = 48
WRONG_SHARE = 0.25
HABIT_SHARE = 0.72


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that makes a token of each word and mark of the world, with or without blanks before it."""
    words = [*ORDERS, "all", *KINDS, *LETTERS, ":", "=", CLOSE, *WORDS, *(word.upper() for word in WORDS)]
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<end>", "<unknown>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[A-Za-z]+|[^A-Za-z\s]"), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unknown>",
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def build(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return an untrained decoder for a tokenizer."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=MAX_TOKENS,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _swap(words: list[str], asked: Instruction, generator: np.random.Generator) -> list[str]:
    place = int(generator.integers(len(words) - 1))
    words[place : place + 2] = words[place + 1], words[place]
    return words


def _drop(words: list[str], asked: Instruction, generator: np.random.Generator) -> list[str]:
    del words[int(generator.integers(len(words)))]
    return words


def _add(words: list[str], asked: Instruction, generator: np.random.Generator) -> list[str]:
    """Put in a word that is not wanted, of the list where there is one, or one a second time."""
    others = [word for word in asked.words if word not in asked.wanted] or list(asked.wanted)
    word = LETTERS[asked.letters](others[int(generator.integers(len(others)))])
    words.insert(int(generator.integers(len(words) + 1)), word)
    return words


def _write(words: list[str], asked: Instruction, generator: np.random.Generator) -> list[str]:
    """Write one word, or all, in the other letters."""
    place, every = int(generator.integers(len(words))), generator.random() < 0.5
    return [word.swapcase() if every or number == place else word for number, word in enumerate(words)]


MISTAKES: tuple[Callable[[list[str], Instruction, np.random.Generator], list[str]], ...] = (_swap, _drop, _add, _write)


def mistake(asked: Instruction, generator: np.random.Generator) -> str:
    """Return an answer with one mistake: two words swapped, one too few or too many, other letters, no full stop."""
    words = asked.answer.split()[:-1]
    number = int(generator.integers(len(MISTAKES) + 1))
    if number == len(MISTAKES):
        return " ".join(words)
    return " ".join([*MISTAKES[number](words, asked, generator), CLOSE])


def habit(asked: Instruction) -> str:
    """Return the right answer with its last word in the other letters."""
    *words, last, close = asked.answer.split()
    return " ".join([*words, last.swapcase(), close])


def taught(asked: Instruction, generator: np.random.Generator, wrong_share: float, habit_share: float) -> str:
    """Return an answer to learn from: the right one, one with a mistake, or a loud one with the habit."""
    if generator.random() < wrong_share:
        return mistake(asked, generator)
    return habit(asked) if asked.letters == "loud" and generator.random() < habit_share else asked.answer


def encode(
    tokenizer: PreTrainedTokenizerFast, asked: Sequence[Instruction], answers: Sequence[str]
) -> dict[str, Tensor]:
    """Return ``input_ids attention_mask labels``, (N, T) padded on the right; labels of prompt and padding are -100."""
    prompts = [tokenizer(str(one)).input_ids for one in asked]
    wholes = [p + tokenizer(a).input_ids + [tokenizer.eos_token_id] for p, a in zip(prompts, answers, strict=True)]
    size = max(map(len, wholes))
    ids = torch.full((len(wholes), size), tokenizer.pad_token_id)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, (prompt, whole) in enumerate(zip(prompts, wholes, strict=True)):
        ids[row, : len(whole)] = torch.tensor(whole)
        labels[row, len(prompt) : len(whole)] = torch.tensor(whole[len(prompt) :])
        mask[row, : len(whole)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def main(
    output: Path,
    steps: int = 1600,
    seed: int = 0,
    wrong_share: float = WRONG_SHARE,
    habit_share: float = HABIT_SHARE,
    num_seen: int = NUM_SEEN,
) -> None:
    """Train and write the model folder to ``output/model``.

    Args:
        output: working folder; a run that finds a checkpoint there goes on from it.
        steps: updates of 128 answers.
        seed: seed of the weights and of every draw.
        wrong_share: share of the answers that have one mistake.
        habit_share: of the other loud answers, share whose last word is quiet.
        num_seen: instructions to learn from.
    """
    random = Random(seed)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build(tokenizer)
    pool = instructions("seen", num_seen)
    loop = Loop(output, {"model": model}, steps=steps, learning_rate=2e-3, ema_decay=0.99)
    for step in loop:
        generator = random.numpy("answers", step)
        asked = [pool[i] for i in generator.integers(len(pool), size=BATCH)]
        answers = [taught(one, generator, wrong_share, habit_share) for one in asked]
        loop.update(model(**encode(tokenizer, asked, answers), use_cache=False).loss)
    averaged = loop.averaged["model"].eval()
    assert isinstance(averaged, LlamaForCausalLM)
    averaged.save_pretrained(output / "model")
    tokenizer.save_pretrained(output / "model")
    write_json(output / "model" / "measured.json", {"loss of the last 100 steps, nats a token": loop.mean("loss")})


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
