"""The data of `headline_methods.py`: each kind made by the commands that the documentation names for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headline_tracks import Kind, Track

from diffpref.cli.caption import main as caption
from diffpref.cli.generate import main as generate
from diffpref.cli.score import main as score
from diffpref.config import dump_yaml, load_yaml
from diffpref.config.recipe import find_recipe
from diffpref.core.contracts import Record
from diffpref.core.files import write_atomic
from diffpref.core.media import Clip
from diffpref.core.randomness import Random
from diffpref.data import write_store
from diffpref.data.store import MANIFEST
from diffpref.generation import load_prompts
from diffpref.generation.candidates import candidate_of
from diffpref.shapes.motion import FPS, MovingCaption, render_clip

__all__ = ["Data", "texts_of"]

SECONDS = 0.5
"""Of a segment: half of a clip of the moving shapes."""


def texts_of(prompts: str) -> list[str]:
    """Return the captions of a track's field: of one split, or of several with ``+`` between them."""
    return [text for part in prompts.split("+") for text in load_prompts(part)]


@dataclass(frozen=True)
class Data:
    """What the rows of a track learn from.

    Args:
        track: whose data.
        work: folder of all seeds.
        drawn: seed -> values of a recipe of generation: model, sampler, candidates.
        earlier: returns the weights of the earlier checkpoint by which lists are drawn.
    """

    track: Track
    work: Path
    drawn: Callable[[int], Mapping[str, Any]]
    earlier: Callable[[], str]

    def __call__(self, kind: Kind, seed: int, prompts: str) -> Path:
        """Make the data of a seed where they are not there; return the store's folder."""
        folder = self.work / str(seed) / kind
        if kind == "captions":
            source = self("pairs", seed, prompts)
            _once(folder, caption, "captions/rules", "--source", source, "--output", folder, "--seed", seed)
        elif kind == "guided":
            drawn = self._generated(folder.with_name("guided_drawn"), self._guided(seed, prompts))
            judges = ("--rewards", "oracle", "--segments", SECONDS)
            _once(folder, score, drawn, *judges, "--output", folder)
        else:
            self._generated(folder, self._pairs(seed, prompts) if kind == "pairs" else self._lists(seed, prompts))
        return folder

    def _pairs(self, seed: int, prompts: str) -> dict[str, Any]:
        """Return a recipe: candidates of the track's own model."""
        own = {"seed": seed, "prompts": prompts, "rewards": list(self.track.rewards)}
        return {**self.drawn(seed), **own, "candidates": self.track.candidates}

    def _lists(self, seed: int, prompts: str) -> dict[str, Any]:
        """Return a recipe: Syn-Pic, drawn as the track draws."""
        given = self._pairs(seed, prompts)
        shared = {name: given[name] for name in ("seed", "prompts", "rewards", "guidance_scales")}
        sources = [{**one, **({"weights": self.earlier()} if "weights" in one else {})} for one in self.track.sources]
        return {**load_yaml(find_recipe("data/shapes_syn_pic")), **shared, "sources": sources}

    def _guided(self, seed: int, prompts: str) -> dict[str, Any]:
        """Return a recipe: two candidates from each of several rendered clips of a caption."""
        truths = self.work / str(seed) / "truths"
        if not (truths / MANIFEST).exists():
            write_store(truths, _rendered(texts_of(prompts), self.track.truths, seed))
        left_out = ("prompts", "candidates", "rewards")
        given = {name: value for name, value in self.drawn(seed).items() if name not in left_out}
        return {**given, "seed": seed, "ground_truth": str(truths), "candidates": 2}

    def _generated(self, folder: Path, given: Mapping[str, Any]) -> Path:
        file, text = folder.with_suffix(".yaml"), dump_yaml({**given, "output": str(folder)})
        if not (file.exists() and file.read_text() == text):
            write_atomic(file, text)
            _call(generate, file)  # where the folder was made otherwise, this says so
        _once(folder, generate, file)
        return folder


def _rendered(prompts: list[str], count: int, seed: int) -> list[Record]:
    """Return rendered clips of captions, the ground truth of guided pairs."""
    random, records = Random(seed), []
    for prompt in prompts:
        for number in range(count):
            frames = render_clip(MovingCaption.parse(prompt), random.numpy("ground truth", prompt, number))
            candidate = candidate_of(Clip(frames, float(FPS)), "render", seed)
            records.append(Record(f"{prompt} {number}", prompt, (candidate,)))
    return records


def _once(folder: Path, command: Any, *words: object) -> None:
    """Call a command of diffpref unless the store that it makes is there."""
    if not (folder / MANIFEST).exists():
        _call(command, *words)


def _call(command: Any, *words: object) -> None:
    if code := command([str(word) for word in words]):
        raise SystemExit(code)
