"""Every objective on the words world, as a table: ``OMP_NUM_THREADS=1 python benchmarks/text_world.py``.

Each objective that is defined for text trains the bundled decoder, whole, on the same answers within one small budget,
with its default options. The judge then compares the trained model with the start on instructions that neither saw,
from the same draws. Training reads labels only: the judge wrote them beforehand and is not asked again until the
comparison. An objective whose win rate is not above one half with its 95 % interval runs again at other learning rates.

A finished run is kept in ``--work`` until the objective's code or the budget changes, so that the script goes on where
it stopped, and a new objective costs its own run only. Table and numbers go to ``benchmarks/text_world.md`` and
``.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from text_world_table import COUNTED, table
from transformers import AutoModelForCausalLM, AutoTokenizer

from diffpref import rewards
from diffpref.config import Recipe, build_recipe
from diffpref.core.assets import resolve
from diffpref.core.contracts import Record, Score
from diffpref.core.errors import ConfigError, DiffprefError
from diffpref.core.files import read_json, remove_folder, write_atomic, write_json
from diffpref.core.randomness import hash_key
from diffpref.data import score_of, write_store
from diffpref.evaluation.statistics import win_rate
from diffpref.generation import GenerationPlan, generate, load_prompts
from diffpref.objectives import registry
from diffpref.ranking import mean_margins, preference_matrix, win_rates
from diffpref.sampling import TextSampler, TextSettings
from diffpref.training import Trainer
from diffpref.training.plan import make_plan
from diffpref.words import FACTS, Instruction, facts, score

MODEL = "bundled:words-decoder"
SETTINGS = TextSettings(max_new_tokens=12, batch_size=100)
OTHER_RATES = (3e-6, 3e-5)
MARGIN = "words_margin"
"""A second score: how much better an answer is than those of its instruction on average, in the judge's logits."""
WIN_RATE = "words_win_rate"
"""A third: how often an answer beats those of its instruction, by the judge's probabilities."""
SCORES = {"curated_retraining": MARGIN, "gpo": MARGIN, "lipo_pointwise": WIN_RATE}
"""What objectives read that take a score for a logit or a win rate: by the judge's own, nearly all answers are good."""
WITH_PEER = ("ofs_dpo",)
"""What trains a second network, which by default is an adapter: here a copy of the whole decoder."""
GROUPS = ("", "chosen", "rejected", "list", "mismatched", "gold", "calibration")
PAIR_COLUMNS = {f"{side}_{told}" for side in ("chosen", "rejected") for told in ("score", "win_rate")}
HELD = PAIR_COLUMNS | {"label", "list_scores", "list_win_rate", "ranks", "weight"}
"""Samples and columns that the data hold."""
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Budget:
    """What every objective gets.

    Args:
        prompts: instructions of the split ``unseen``, with so many answers each.
        steps: updates of so many pairs, labelled answers or lists.
        held_out: instructions of the split ``held_out`` that are judged, with so many draws each.
    """

    prompts: int = 1500
    answers: int = 4
    steps: int = 60
    batch_size: int = 32
    learning_rate: float = 1e-5
    held_out: int = 600
    draws: int = 2
    seed: int = 0


def draw(network: Any, budget: Budget) -> list[str]:
    """Return the answers to the held-out instructions, ``budget.draws`` of each."""
    prompts = [p for p in load_prompts(f"words:held_out:{budget.held_out}") for _ in range(budget.draws)]
    seeds = [hash_key(budget.seed, "judged", prompt, k % budget.draws) for k, prompt in enumerate(prompts)]
    return TextSampler(network, AutoTokenizer.from_pretrained(resolve(MODEL)), SETTINGS)(prompts, seeds)


def judge(answers: list[str], budget: Budget) -> dict[str, Any]:
    """Return the judge's score of each answer, the share of right ones, and the share of each fact."""
    asked = [Instruction.parse(p) for p in load_prompts(f"words:held_out:{budget.held_out}")]
    pairs = [(answer, asked[k // budget.draws]) for k, answer in enumerate(answers)]
    scores, found = [score(*pair) for pair in pairs], [facts(*pair) for pair in pairs]
    shares = {fact: sum(f[fact] for f in found) / len(found) for fact in FACTS}
    return {"scores": scores, "right": sum(all(f.values()) for f in found) / len(found), "facts": shares}


def prepare(work: Path, budget: Budget) -> dict[str, Any]:
    """Draw and label the answers to learn from, where they are not there; return what the start answers."""
    path = resolve(MODEL)
    network, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    plan = GenerationPlan(
        prompts=tuple(load_prompts(f"words:unseen:{budget.prompts}")),
        candidates=budget.answers,
        seed=budget.seed,
        settings=(SETTINGS,),
        generator=MODEL,
        unit_size=250,
    )
    scorers = {"words": rewards.load("words")}
    drawn = generate(plan, TextSampler(network, tokenizer, SETTINGS), work / "drawn", scorers=scorers)
    if not (work / "data").exists():
        write_store(work / "data", [with_comparisons(record) for record in drawn])
    if not (work / "start.json").exists():
        write_json(work / "start.json", judge(draw(network, budget), budget))
    return dict(read_json(work / "start.json"))


def with_comparisons(record: Record) -> Record:
    """Give each answer its mean margin over the answers of its record, itself among them, and its win rate.

    Objectives of three answers find the best one as ``gold``, and any draw of the start as ``calibration``.
    """
    scale = rewards.load("words").info.pair_scale or 1.0
    logits = [scale * score_of(candidate, "words") for candidate in record.candidates]
    margins = mean_margins([[own - other for other in logits] for own in logits])
    rates = win_rates(preference_matrix(logits))
    answers = [
        replace(candidate, scores=(*candidate.scores, Score(MARGIN, "1", margin), Score(WIN_RATE, "1", rate)))
        for candidate, margin, rate in zip(record.candidates, margins, rates, strict=True)
    ]
    others = {"gold": logits.index(max(logits)), "calibration": hash_key("calibration", record.id) % len(answers)}
    told = {group: str(number) for group, number in others.items()}
    return replace(record, candidates=tuple(answers), meta={**record.meta, **told})


def recipe_of(name: str, work: Path, budget: Budget, learning_rate: float) -> Recipe:
    """Return the recipe of a run; the objective has its default options."""
    told = SCORES.get(name, "words")
    return build_recipe(
        {
            "seed": budget.seed,
            "output": str(work / "run"),
            "model": {"family": "causal_lm", "path": MODEL},
            "adapter": {"kind": "full"},
            "method": "language",
            "objective": [name],
            "roles": {"peer": {"source": "copy"}} if name in WITH_PEER else {},
            "data": {
                "source": str(work / "data"),
                "score": told,
                "score_scale": rewards.load("words").info.pair_scale if told == "words" else 1.0,
            },
            "optim": {"learning_rate": learning_rate, "weight_decay": 0.0, "warmup_steps": 5},
            "training": {"steps": budget.steps, "batch_size": budget.batch_size, "resume": False},
        }
    )


def run(name: str, work: Path, budget: Budget, learning_rate: float, start: dict[str, Any]) -> dict[str, Any]:
    """Train and judge; what has been done with the same code and budget is read instead."""
    code = inspect.getsource(registry.get(name).spec.function)
    told = [SCORES[name]] if name in SCORES else ["peer"] if name in WITH_PEER else []
    setting = json.dumps([code, asdict(budget), learning_rate, *told], sort_keys=True)
    digest = hashlib.blake2b(setting.encode(), digest_size=8).hexdigest()
    kept = work / "results" / f"{name}@{learning_rate:g}.json"
    if kept.exists() and (found := read_json(kept))["digest"] == digest:
        return dict(found)
    if (work / "run").exists():
        remove_folder(work / "run")
    begun, cpu = time.perf_counter(), time.process_time()
    curve: dict[str, list[float]] = {"loss": [], "rewards/margins": [], "rewards/accuracies": [], "grad_norm": []}
    result: dict[str, Any] = {"objective": name, "learning_rate": learning_rate, "digest": digest, "curve": curve}
    try:
        trainer = Trainer(recipe_of(name, work, budget, learning_rate))
        for metrics in trainer.steps():
            for key, values in curve.items():
                values += [float(f"{metrics[key]:.5g}")] if key in metrics else []
    except DiffprefError as error:
        result["error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    else:
        judged = judge(draw(trainer.bare, budget), budget)
        groups = [k // budget.draws for k in range(len(judged["scores"]))]
        result["win"] = asdict(win_rate(judged.pop("scores"), start["scores"], groups))
        result |= judged
    result |= {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu}
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, result)
    return result


def refusal(name: str, work: Path, budget: Budget) -> str | None:
    """Return why an objective cannot be trained on text and these data; None where it can."""
    try:
        plan = make_plan(recipe_of(name, work, budget, budget.learning_rate))
    except ConfigError as error:
        return str(error).splitlines()[0].removeprefix("objective: ")
    lacking = sorted({*plan.columns - HELD, *(f"{group} samples" for group in plan.groups if group not in GROUPS)})
    return f"needs {', '.join(lacking)}, which these data do not hold" if lacking else None


def rises(result: dict[str, Any]) -> bool:
    """Whether the interval of the win rate lies above one half."""
    return "win" in result and result["win"]["low"] > 0.5


def main() -> None:
    """Run what is missing; write table and numbers after each objective."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/text_world"))
    parser.add_argument("--objectives", nargs="+", help="not given: all of the registry")
    parser.add_argument("--output", type=Path, default=HERE / "text_world", help="without suffix")
    given = parser.parse_args()
    logging.getLogger("diffpref").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    budget = Budget()
    start = prepare(given.work, budget)
    refused: dict[str, str] = {}
    results: dict[str, list[dict[str, Any]]] = {}
    for name in given.objectives or sorted(registry, key=lambda name: registry.get(name).spec.kind not in COUNTED):
        if why := refusal(name, given.work, budget):
            refused[name] = why
            continue
        results[name] = [run(name, given.work, budget, budget.learning_rate, start)]
        told = results[name][0].get("win") or results[name][0]["error"]
        print(f"{name}: {told}, {results[name][0]['seconds']:.0f} s", flush=True)
        write(given.output, budget, start, results, refused)
    for name, runs in results.items():
        if not rises(runs[0]):
            runs += [run(name, given.work, budget, rate, start) for rate in OTHER_RATES]
            write(given.output, budget, start, results, refused)


def write(
    output: Path,
    budget: Budget,
    start: dict[str, Any],
    results: dict[str, list[dict[str, Any]]],
    refused: dict[str, str],
) -> None:
    """Write the numbers and the table of what has been run."""
    specs = {name: registry.get(name).spec for name in sorted({*results, *refused})}
    numbers = {
        "budget": asdict(budget),
        "start": {key: value for key, value in start.items() if key != "scores"},
        "about": {name: {"kind": spec.kind, "evidence": spec.evidence} for name, spec in specs.items()},
        "objectives": dict(sorted(results.items())),
        "refused": refused,
    }
    write_json(output.with_suffix(".json"), numbers)
    write_atomic(output.with_suffix(".md"), f"# Every objective on the words world\n\n{__doc__}\n{table(numbers)}")


if __name__ == "__main__":
    main()
