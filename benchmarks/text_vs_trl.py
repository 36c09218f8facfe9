"""Our DPO step on a language model against TRL's: ``python benchmarks/text_vs_trl.py`` (extra ``compare``).

Same pairs in the same order, weights, adapter, loss and optimiser, so that the losses must agree. Both trainers run as
their users run them, `trl.DPOTrainer.train` and `diffpref.Trainer.steps`, taking turns update by update in one process
on one thread; CPU time is counted, so that other work on the machine hardly matters. The rows:

- ``trl``: as it comes: gradient checkpointing, bfloat16 autocast, the reference asked in every step.
- ``trl, best``: no checkpointing, float32, everything else alike.
- ``trl, precomputed`` and ``trl, best, precomputed``: the reference's sums computed before the first step.
- ``diffpref`` and ``diffpref, bank``: float32, live reference and banked one (the first pass over the data fills it and
  is not counted, as TRL's precomputing is not).

``--profile`` shows where our time goes instead; ``--memory`` measures peaks, each row in a process of its own (at a
vocabulary of 49,152 and rows of 128 + 384 with the flags that benchmarks/text_vs_trl.md gives).
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from diffpref.config import build_recipe
from diffpref.models import load_family
from diffpref.models.decoders import tiny_tokenizer
from diffpref.models.families.causal_lm import CausalLM
from diffpref.training import Trainer

BETA, RATE, RANK = 0.1, 1e-4, 16
TRL = {
    "trl": {},
    "trl, best": {"gradient_checkpointing": False, "bf16": False},
    "trl, precomputed": {"precompute_ref_log_probs": True},
    "trl, best, precomputed": {"gradient_checkpointing": False, "bf16": False, "precompute_ref_log_probs": True},
}
OURS = {"diffpref": 0, "diffpref, bank": 1}
SAME_KIND = {
    "diffpref": ("trl", "trl, best"),
    "diffpref, bank": ("trl, precomputed", "trl, best, precomputed"),
}
WORDS = "the sky is blue and green are leaves of a tree near water under stones with light from stars at night".split()


def build_model(folder: Path, size: str, vocabulary: int) -> None:
    """Write a model with random weights: ``tiny`` (4 layers of width 128) or ``135m`` (SmolLM2's shape)."""
    shapes = {
        "tiny": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4},
        "135m": {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
        },
    }
    tokenizer = tiny_tokenizer(vocabulary)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **shapes[size],
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_pairs(count: int, prompt: int, completion: int, ragged: bool = True) -> list[dict[str, str]]:
    """Return texts of about so many bytes; each is a token. Lengths vary by half where ragged."""
    generator = torch.Generator().manual_seed(1)

    def text(length: int) -> str:
        wanted = int(length * (0.5 + torch.rand((), generator=generator).item())) if ragged else length
        picked = torch.randint(len(WORDS), (wanted,), generator=generator).tolist()
        return " ".join(WORDS[number] for number in picked)[:wanted]

    return [{"prompt": text(prompt), "chosen": text(completion), "rejected": text(completion)} for _ in range(count)]


class Theirs(threading.Thread):
    """TRL's trainer in a thread of its own, which works only while it is waited for."""

    def __init__(self, name: str, make: Callable[[Any], Any]) -> None:
        super().__init__(daemon=True)
        self.title, self.go, self.done = name, threading.Semaphore(0), threading.Semaphore(0)
        self.seconds, self.losses, self.finished = [], [], False  # type: list[float], list[float], bool
        self.error: BaseException | None = None
        self.trainer = make(self._callback())

    def _callback(self) -> Any:
        theirs = self

        class Baton(transformers.TrainerCallback):
            def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
                theirs.go.acquire()
                theirs.started = time.thread_time()

            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                theirs.seconds.append(time.thread_time() - theirs.started)
                theirs.done.release()

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
                if logs and "loss" in logs:
                    theirs.losses.append(float(logs["loss"]))

        return Baton()

    def run(self) -> None:
        torch.set_num_threads(1)
        try:
            self.trainer.train()
        except BaseException as error:  # told by the thread that waits
            self.error = error
        self.finished = True
        self.done.release()

    def step(self) -> None:
        """Let it do one update."""
        self.go.release()
        self.done.acquire()
        if self.error is not None:
            raise self.error


def theirs(name: str, model: Path, rows: list[dict[str, str]], steps: int, batch: int, lora: Any, out: Path) -> Theirs:
    """Build TRL's trainer on rows that are already in the order of training."""
    import datasets
    import peft
    import trl

    def make(callback: Any) -> Any:
        config = trl.DPOConfig(
            output_dir=str(out),
            per_device_train_batch_size=batch,
            max_steps=steps,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            beta=BETA,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            **TRL[name],
        )
        network = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        options: dict[str, Any] = {}
        if lora is not None:
            options["peft_config"] = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(lora["targets"]))
        trainer = trl.DPOTrainer(
            model=network,
            args=config,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=transformers.AutoTokenizer.from_pretrained(model),
            callbacks=[callback],
            **options,
        )
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer._get_train_sampler = lambda *args, **kwargs: torch.utils.data.SequentialSampler(trainer.train_dataset)
        if lora is not None:
            own = dict(trainer.model.named_parameters())
            with torch.no_grad():
                for key, value in lora["start"].items():
                    own[f"base_model.model.{key}"].copy_(value)
        return trainer

    return Theirs(name, make)


class Ours:
    """Our trainer, one update at a time."""

    def __init__(self, model: Path, source: Path, steps: int, batch: int, kind: str, slots: int, out: Path) -> None:
        recipe = build_recipe(
            {
                "output": str(out),
                "model": {"family": "causal_lm", "path": str(model)},
                "adapter": {"kind": kind, "rank": RANK},
                "data": {"source": str(source), "padding": "batch"},
                "method": "language",
                "objective": {"dpo": {"beta": BETA}},
                "optim": {"learning_rate": RATE, "weight_decay": 0.0, "eps": 1e-8},
                "training": {"steps": steps, "batch_size": batch},
                "bank": {"slots": slots},
            }
        )
        self.trainer = Trainer(recipe)
        self.trainer.setup()
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self._steps: Iterator[dict[str, float]] | None = None

    def start(self) -> None:
        """Nothing: the loop begins with the first update."""

    def step(self) -> None:
        """Do one update."""
        self._steps = self._steps or self.trainer.steps()
        started = time.thread_time()
        metrics = next(self._steps)
        self.seconds.append(time.thread_time() - started)
        self.losses.append(metrics["loss"])

    def order(self, steps: int, batch: int) -> list[int]:
        """Return the numbers of the pairs in the order of training."""
        return [index for step in range(steps) for index, _ in self.trainer.batches.sampler.batch(step, batch)]


def quiet() -> None:
    """Keep the libraries from talking between the rows."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    import datasets

    datasets.disable_progress_bars()


def prepare(folder: Path, given: argparse.Namespace) -> tuple[Path, list[dict[str, str]], Path]:
    """Write model and pairs; return where, and the pairs."""
    model = folder / "model"
    if given.model:
        family = load_family("causal_lm", given.model)
        assert isinstance(family, CausalLM)
        family.save_network(family.network, model, None)
    else:
        build_model(model, given.size, given.vocabulary)
    rows = make_pairs(given.pairs * given.epoch, given.prompt, given.completion, not given.even)
    source = folder / "pairs.jsonl"
    source.write_text("".join(json.dumps({"id": str(i), **row}) + "\n" for i, row in enumerate(rows)))
    return model, rows, source


def contestants(folder: Path, given: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """Build the trainers of some rows."""
    model, rows, source = prepare(folder, given)
    steps, batch = given.warmup + given.repeats, given.pairs
    ours = {
        name: Ours(model, source, steps, batch, given.adapter, slots, folder / name.replace(", ", "-"))
        for name, slots in OURS.items()
        if name in names or name == "diffpref"
    }
    first = ours["diffpref"]
    ordered = [rows[index] for index in first.order(steps, batch)]
    lora = None
    if given.adapter == "lora":
        start = {k: p.detach().clone() for k, p in first.trainer.bare.named_parameters() if "lora_" in k}
        lora = {"targets": sorted(first.trainer.bare.peft_config["default"].target_modules), "start": start}
    if not set(names) & OURS.keys():  # what only gave order and start is not to be in the memory of others
        del first, ours
        gc.collect()
    found: dict[str, Any] = {}
    for name in names:
        if name in OURS:
            found[name] = ours[name]
        else:
            found[name] = theirs(name, model, ordered, steps, batch, lora, folder / name.replace(", ", "-"))
    return found


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Let the rows take turns; return milliseconds, losses and ratios."""
    names = [name for name in (*TRL, *OURS) if not given.only or name in given.only]
    with tempfile.TemporaryDirectory() as folder:
        rows = contestants(Path(folder), given, names)
        for row in rows.values():
            row.start()
        for turn in range(given.warmup + given.repeats):
            for name in names if turn % 2 == 0 else reversed(names):
                rows[name].step()
        seconds = {name: row.seconds[given.warmup :] for name, row in rows.items()}
        losses = {name: row.losses for name, row in rows.items()}
        report: dict[str, Any] = {"rows": {}, "ratios": {}}
        for name in names:
            report["rows"][name] = {
                "ms": 1000 * statistics.median(seconds[name]),
                "losses": losses[name][: given.warmup + given.repeats],
            }
        for ours, others in SAME_KIND.items():
            for other in others:
                if ours in names and other in names:
                    turns = [b / a for a, b in zip(seconds[ours], seconds[other], strict=True)]
                    low, middle, high = statistics.quantiles(turns, n=4)
                    gaps = [abs(a - b) for a, b in zip(losses[ours], losses[other], strict=False)]
                    report["ratios"][f"{other} / {ours}"] = {
                        "median": middle,
                        "quartiles": [low, high],
                        "largest loss difference": max(gaps, default=float("nan")),
                    }
        return report


def profile(given: argparse.Namespace) -> str:
    """Return where the time of our step with a live reference goes, by operation."""
    from torch.profiler import profile as profiler

    with tempfile.TemporaryDirectory() as folder:
        (row,) = contestants(Path(folder), given, ["diffpref"]).values()
        for _ in range(given.warmup):
            row.step()
        with profiler() as seen:
            for _ in range(given.repeats):
                row.step()
    found = sorted(seen.key_averages(), key=lambda one: -one.self_cpu_time_total)
    whole = sum(one.self_cpu_time_total for one in found)
    lines = ["| operation | share | calls a step |", "| :--- | ---: | ---: |"]
    for one in found[:12]:
        share = 100 * one.self_cpu_time_total / whole
        lines.append(f"| `{one.key[:48]}` | {share:.1f} % | {one.count / given.repeats:.0f} |")
    return "\n".join(lines)


def peak(given: argparse.Namespace) -> None:
    """Run one row for a few updates and print its memory: before the first, and at most (MiB)."""
    with tempfile.TemporaryDirectory() as folder:
        (row,) = contestants(Path(folder), given, [given.peak]).values()
        row.start()
        before = resident()
        for _ in range(given.warmup + given.repeats):
            row.step()
        print(json.dumps({"row": given.peak, "before": before, "peak": high_water()}))


def resident() -> float:
    """Return the memory of this process now, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def high_water() -> float:
    """Return the most memory that this process has had, MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = ["| step | CPU ms, median |", "| :--- | ---: |"]
    lines += [f"| {name} | {row['ms']:.1f} |" for name, row in report["rows"].items()]
    lines += ["", "| TRL / ours | median (quartiles) | losses differ by |", "| :--- | ---: | ---: |"]
    for name, ratio in report["ratios"].items():
        low, high = ratio["quartiles"]
        gap = ratio["largest loss difference"]
        lines.append(f"| {name} | {ratio['median']:.2f} ({low:.2f} to {high:.2f}) | {gap:.1e} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "135m"), default="tiny")
    parser.add_argument("--model", help="a folder or .gguf file instead of random weights")
    parser.add_argument("--adapter", choices=("lora", "full"), default="full")
    parser.add_argument("--vocabulary", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=4, help="of an update")
    parser.add_argument("--epoch", type=int, default=3, help="updates in a pass over the data")
    parser.add_argument("--prompt", type=int, default=20, help="tokens, on the average")
    parser.add_argument("--completion", type=int, default=20)
    parser.add_argument("--even", action="store_true", help="all texts of these lengths")
    parser.add_argument("--warmup", type=int, default=3, help="updates that are not counted; at least one pass")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--only", nargs="*", help="rows")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--profile", action="store_true", help="of our step, by operation")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    given = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    if given.peak:
        peak(given)
    elif given.profile:
        print(profile(given))
    elif given.memory:
        same = [word for word in sys.argv[1:] if word != "--memory"]
        for name in (*TRL, *OURS):
            if given.only and name not in given.only:
                continue
            done = subprocess.run([sys.executable, __file__, *same, "--peak", name], capture_output=True, text=True)
            print(done.stdout.strip().splitlines()[-1] if done.returncode == 0 else done.stderr[-2000:])
    else:
        print(table(measure(given)))


if __name__ == "__main__":
    main()
