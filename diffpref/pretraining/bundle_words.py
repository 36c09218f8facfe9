"""Measure the trained decoder of the words world and put it into the package, with its card.

Run ``python -m diffpref.pretraining.bundle_words --trained runs/pretraining`` after the decoder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from diffpref.core.assets import ASSETS
from diffpref.core.files import publish_folder, read_json
from diffpref.core.randomness import hash_key
from diffpref.pretraining.card import Stage, write_card
from diffpref.sampling import TextSampler, TextSettings
from diffpref.words import FACTS, facts, instructions, score
from diffpref.words.grammar import MAX_WORDS

__all__ = ["MAX_NEW_TOKENS", "main", "measure_decoder"]

MAX_NEW_TOKENS = MAX_WORDS + 5  # a full stop, an end, and room for words too many


def measure_decoder(folder: Path, seed: int, count: int = 1000) -> dict[str, float]:
    """Let the decoder answer the first instructions of the splits that it never saw, and the judge read the answers."""
    network = LlamaForCausalLM.from_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    measured: dict[str, float] = {}
    for split, temperature in (("unseen", 1.0), ("unseen", 0.0), ("held_out", 1.0)):
        settings = TextSettings(max_new_tokens=MAX_NEW_TOKENS, temperature=temperature, batch_size=100)
        asked = instructions(split, count)
        seeds = [hash_key(seed, "measure", split, number) for number in range(count)]
        answers = TextSampler(network, tokenizer, settings)([str(one) for one in asked], seeds)
        found = [facts(answer, one) for answer, one in zip(answers, asked, strict=True)]
        how = f"{split}, temperature {temperature:g}"
        measured[f"right answers, {how} ({count} instructions)"] = float(np.mean([all(f.values()) for f in found]))
        scores = [score(answer, one) for answer, one in zip(answers, asked, strict=True)]
        measured[f"mean score, {how}"] = float(np.mean(scores))
        measured |= {f"{fact}, {how}": float(np.mean([f[fact] for f in found])) for fact in FACTS}
    return measured


def main(trained: Path = Path("runs/pretraining"), assets: Path = ASSETS / "words", count: int = 1000) -> None:
    """Copy the decoder to the assets.

    Args:
        trained: the folder of all working folders.
        assets: where the model goes.
        count: instructions of a split to measure.
    """
    counters = read_json(trained / "decoder" / "checkpoint" / "counters.json")
    stage = Stage("diffpref.pretraining.decoder", (), counters["step"], 0, counters["seconds"] / 60)
    with publish_folder(assets / "decoder", replace=True) as folder:
        shutil.copytree(trained / "decoder" / "model", folder, dirs_exist_ok=True)
        measured = {**read_json(folder / "measured.json"), **measure_decoder(folder, seed=3, count=count)}
        write_card(folder, "The decoder of the words world", [stage], measured, "words", "other text")


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
