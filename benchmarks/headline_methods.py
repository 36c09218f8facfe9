"""The headline methods, each by its own procedure, within one budget of forwards.

    OMP_NUM_THREADS=1 python benchmarks/headline_methods.py image flow --work runs/headline

A track trains one bundled model by every method that it is for. A run may spend so many forwards of the denoiser, one
sample each, those of reference, inversion and on-policy sampling included; it ends with the update that reaches the
budget. Beta and learning rate of a row are the best of four, tried at a third of the budget with a seed and
captions of their own. Then every row runs for every seed, which has data, order and noise of its own, and base and
result draw for captions that nothing was learnt from. Intervals are 95 %, paired, by bootstrap over both seeds and
captions.

What an interrupted start has done is not done again, run by run. Tracks may run side by side, one process each, and so
may different rows of a track (``--rows``): a last start without that finds them and writes the numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from headline_data import Data, texts_of
from headline_pages import write_pages
from headline_table import gain
from headline_tracks import TRACKS, Kind, Track

from diffpref.config import Recipe, build_recipe
from diffpref.core.files import publish_folder, read_json, remove_folder, write_json
from diffpref.core.media import Clip
from diffpref.evaluation.compare import column_of
from diffpref.evaluation.plan import evaluation_pairs
from diffpref.loops import load_alignment
from diffpref.loops.judging import judges_and_facts
from diffpref.loops.opening import load_model, make_sampler, sampler_settings
from diffpref.rewards.oracle import Oracle
from diffpref.training import Trainer

RESULTS = Path(__file__).with_suffix("")
SEARCH_SEED, SEARCH_SHARE = 100, 1 / 3
MOST_UPDATES = 10_000
"""A budget of forwards ends every run before."""
MARKS = (0.25, 0.5, 1.0)
"""Shares of the budget after which a run is judged."""
SHOWN = 6
"""Captions whose pictures are kept."""
AT_ONCE = 50


class Meter:
    """Counts the rows of every forward of a trainer's denoisers, whoever asks."""

    def __init__(self, trainer: Trainer) -> None:
        self.rows = 0
        roles: Mapping[str, Any] = trainer.roles
        for network in {id(role.network): role.network for role in roles.values()}.values():
            network.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.rows += len(next(given for given in (*args, *kwargs.values()) if isinstance(given, torch.Tensor)))


@dataclass(frozen=True)
class Job:
    """A track at work.

    Args:
        name: of the track.
        track: what is compared.
        work: folder of all its data and runs.
        results: folder of the track's numbers.
    """

    name: str
    track: Track
    work: Path
    results: Path

    def round(self, seed: int) -> Any:
        """Return the recipe of the round that the track is made of."""
        changes: dict[str, Any] = {"output": str(self.work), "seed": seed}
        if self.track.guidance is not None:
            changes["generation.guidance_scales"] = [self.track.guidance]
        return load_alignment(self.track.recipe, changes)

    # ------------------------------------------------------------ data

    def data(self, kind: Kind, seed: int, prompts: str) -> Path:
        """Make the data of a seed where they are not there; return the store's folder."""
        return Data(self.track, self.work / "data", self._drawn, self._earlier)(kind, seed, prompts)

    def _drawn(self, seed: int) -> dict[str, Any]:
        given: dict[str, Any] = self.round(seed).generation.model_dump(mode="json", exclude_none=True)
        return given

    def _earlier(self) -> str:
        """Return the weights that the search's best run of the first row has left."""
        first = next(iter(self.track.rows))
        best = self.best(first)
        return str(self.folder(first, SEARCH_SEED, best["beta"], best["rate"]) / f"at_{MARKS[-1]:g}")

    # ------------------------------------------------------------ a run

    def folder(self, name: str, seed: int, beta: float, rate: float) -> Path:
        """Return where a run lies."""
        return self.work / "runs" / name / f"seed{seed}_beta{beta:g}_lr{rate:g}"

    def recipe(self, name: str, seed: int, beta: float, rate: float, prompts: str) -> Recipe:
        """Return the training recipe of a run; it makes the data that are not there."""
        row = self.track.rows[name]
        source = self.data(row.data, seed, prompts)
        changes = {
            "output": str(self.folder(name, seed, beta, rate) / "run"),
            "data.source": str(source),
            "data.cache": f"{source}-cache",
            "training.steps": MOST_UPDATES,
            **row.changes(beta, rate),
        }
        return build_recipe(self.round(seed).training.model_dump(mode="json"), changes)

    def run(self, name: str, seed: int, beta: float, rate: float, *, search: bool = False) -> dict[str, Any]:
        """Train, judge at every mark, and return what was found; or read it."""
        track = self.track
        budget = round(track.budget * (SEARCH_SHARE if search else 1))
        recipe = self.recipe(name, seed, beta, rate, track.search_trained_on if search else track.trained_on)
        judged = track.searched_on if search else track.judged_on
        marks = MARKS if track.rows[name].curve and not search else MARKS[-1:]
        folder = self.folder(name, seed, beta, rate)
        told = [recipe.model_dump(mode="json"), budget, judged, marks, track.curve, track.draws]
        decided = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
        found = folder / "found.json"
        if found.exists() and read_json(found)["decided"] == decided:
            return dict(read_json(found))
        if folder.exists():
            remove_folder(folder)
        started, cpu = time.perf_counter(), time.process_time()
        spent = train(recipe, budget, {mark: folder / f"at_{mark:g}" for mark in marks})
        result = {
            "decided": decided,
            "beta": beta,
            "rate": rate,
            "seconds": round(time.perf_counter() - started, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "marks": {
                f"{mark:g}": {
                    **spent[mark],
                    **self.judge(folder / f"at_{mark:g}", seed, judged, None if mark == 1 else track.curve),
                }
                for mark in marks
            },
        }
        write_json(found, result)
        return result

    # ------------------------------------------------------------ what is drawn with a result

    def judge(self, weights: Path | None, seed: int, prompts: str, limit: int | None = None) -> dict[str, Any]:
        """Draw with the base or with a LoRA on it, and return what oracle and judges say, sample by sample.

        Pictures or clips of the first captions are kept beside the weights.
        """
        round_ = self.round(seed)
        family = load_model(round_.model, "cpu", None if weights is None else str(weights))
        texts, seeds = evaluation_pairs(texts_of(prompts)[:limit], self.track.draws, seed)
        at_once = math.ceil(len(texts) / math.ceil(len(texts) / AT_ONCE))
        settings = replace(sampler_settings(round_.generation, family)[0], batch_size=at_once)
        media = make_sampler(family, settings, round_.model.precision)(texts, seeds)
        judges, facts = judges_and_facts(round_.evaluation.judges, "cpu")
        seen = column_of(media, texts, judges, facts)
        shown = [one.frames if isinstance(one, Clip) else one for one in media[: SHOWN * self.track.draws]]
        kept = self.work / "samples" / str(seed) if weights is None else weights
        kept.mkdir(parents=True, exist_ok=True)
        np.save(kept / "samples.npy", np.stack(shown), allow_pickle=False)
        found: dict[str, Any] = {
            "facts": {name: "".join("01"[held] for held in column) for name, column in seen.facts.items()},
            "scores": {name: [round(float(s or 0), 3) for s in column] for name, column in seen.scores.items()},
        }
        if isinstance(media[0], Clip):
            moved = [Oracle.watched(clip)["dynamic_degree"] for clip in media]
            found["scores"]["dynamic_degree"] = [round(value, 3) for value in moved]
        return found

    def base(self, seed: int, prompts: str) -> dict[str, Any]:
        """Return what is said of the base's samples, or read it."""
        name = hashlib.sha256(json.dumps([prompts, self.track.draws]).encode()).hexdigest()[:8]
        file = self.work / "base" / f"{seed}_{name}.json"
        if not file.exists():
            write_json(file, self.judge(None, seed, prompts))
        return dict(read_json(file))

    # ------------------------------------------------------------ the search

    def search(self, name: str) -> list[dict[str, Any]]:
        """Try every setting of the grid on captions of the search, all on the same data."""
        base = self.base(SEARCH_SEED, self.track.searched_on)
        tried = []
        for beta, rate in self.track.grid:
            found = self.run(name, SEARCH_SEED, beta, rate, search=True)["marks"]["1"]
            told = {"beta": beta, "rate": rate, "gain": gain(base, found), "updates": found["updates"]}
            tried.append(told)
            print(self.name, name, told, flush=True)
        return tried

    def best(self, name: str) -> dict[str, Any]:
        """Return the setting of a row with the most facts right; a control has that of its row."""
        return max(self.search(self.track.rows[name].control or name), key=lambda one: one["gain"])

    # ------------------------------------------------------------ all of it

    def all(self, seeds: Sequence[int], rows: Sequence[str]) -> None:
        """Search, then run rows for every seed; after each seed write the numbers, where these are all rows."""
        chosen = {name: self.best(name) for name in rows}
        for number, seed in enumerate(seeds, 1):
            base = self.base(seed, self.track.judged_on)
            for name in rows:
                found = self.run(name, seed, chosen[name]["beta"], chosen[name]["rate"])
                right = gain(base, found["marks"][f"{MARKS[-1]:g}"])
                print(self.name, name, "seed", seed, f"{right:+.3f}", f"{found['seconds']:.0f} s", flush=True)
            if len(rows) == len(self.track.rows):
                self.write(seeds[:number])

    def write(self, seeds: Sequence[int]) -> None:
        """Write the numbers of seeds for which every row has been run."""
        searched = [name for name, row in self.track.rows.items() if not row.control]
        results: dict[str, Any] = {"search": {name: self.search(name) for name in searched}, "runs": {}}
        results["base"] = {str(seed): self.base(seed, self.track.judged_on) for seed in seeds}
        for name in self.track.rows:
            best = self.best(name)
            runs = {str(seed): self.run(name, seed, best["beta"], best["rate"]) for seed in seeds}
            results["runs"][name] = runs
        write_json(self.results / f"{self.name}.json", results)


def train(recipe: Recipe, budget: int, folders: Mapping[float, Path]) -> dict[float, dict[str, int]]:
    """Train until a budget of forwards is spent; keep the weights at shares of it.

    Returns:
        share -> forwards and updates so far.
    """
    trainer = Trainer(recipe)
    trainer.setup()
    meter, found = Meter(trainer), dict[float, dict[str, int]]()
    with closing(trainer.steps()) as steps:
        for _ in steps:
            for share in [one for one in folders if one not in found and meter.rows >= one * budget]:
                with publish_folder(folders[share], replace=True) as folder:
                    trainer.plan.adapter.save(trainer.family, trainer.bare, folder)
                found[share] = {"forwards": meter.rows, "updates": trainer.step}
            if len(found) == len(folders):
                break
    return found


def main() -> None:
    """Run the named tracks, then write the page of all that are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tracks", nargs="*", metavar="TRACK", help=f"{', '.join(TRACKS)}; none: only write the page")
    parser.add_argument("--work", type=Path, default=Path("runs/headline"), help="data and runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="numbers, pictures and the page")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", help="of one track, the rows to run; not given: all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.tracks:
        track = TRACKS[name]
        Job(name, track, given.work / name, given.results).all(given.seeds, given.rows or list(track.rows))
    write_pages(given.results, given.work, __doc__ or "")


if __name__ == "__main__":
    main()
