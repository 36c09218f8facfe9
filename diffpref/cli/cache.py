"""``diffpref cache``: encode images and captions once, for training."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from diffpref.cli._arguments import Parser
from diffpref.config import Recipe, build_recipe, load_yaml
from diffpref.config.recipe import find_recipe
from diffpref.core.errors import ConfigError
from diffpref.loops.opening import pick_device, quiet_libraries

__all__ = ["main"]

T = TypeVar("T")
CHUNK = 256  # images named at once; their bytes are in memory


def main(argv: Sequence[str]) -> int:
    """Fill the cache that a recipe's training reads, then say how much was there."""
    parser = Parser(
        prog="diffpref cache",
        description="Encode images or clips, and captions, with the VAE and the text encoders of a recipe's model.",
    )
    parser.add_argument("store", metavar="STORE", help="folder of a store, or a plain table of pairs")
    parser.add_argument("--recipe", required=True, metavar="RECIPE", help="a file or a bundled name, as for training")
    parser.add_argument(
        "--output", metavar="DIR", help="folder of the cache; not given: the recipe's data.cache, else its output/cache"
    )
    parser.add_argument(
        "--bank",
        action="store_true",
        help="encode what the recipe's training reads, then fill its bank; bank.slots is how many draws",
    )
    parser.add_argument("--slots", type=int, metavar="K", help="draws a record for --bank; not given: the recipe's")
    parser.add_argument("--device", help="where networks run; not given: the accelerator, if there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.read(argv)
    given = load_yaml(find_recipe(arguments.recipe))
    changed: dict[str, Any] = {"data.source": arguments.store}
    if arguments.output:
        changed["data.cache"] = arguments.output
    if arguments.slots is not None:
        changed["bank.slots"] = arguments.slots
    # a folder for the cache is all that this command needs of a run
    recipe = build_recipe({"output": arguments.output} if arguments.output else {}, given, changed)
    if arguments.bank:
        return _fill_banks(recipe, arguments.device, arguments.json)

    from diffpref.models import registry as families

    if families.get(recipe.model.family).likelihood != "denoising":
        raise ConfigError("texts are tokenised before the first step: there is nothing to cache; --bank fills a bank")
    from diffpref.core.randomness import Random
    from diffpref.data import open_records
    from diffpref.training.encoders.denoising import framing_of, open_cache

    quiet_libraries()
    start = time.perf_counter()
    records = open_records(arguments.store, columns=recipe.data.columns, on_bad_shard=recipe.data.on_bad_shard)
    cache = open_cache(recipe, pick_device(arguments.device))
    folder = Path(recipe.data.cache or Path(recipe.output) / "cache")
    kind = "images" if cache.cut is None else "clips"
    counts = {kind: 0, f"new_{kind}": 0, "captions": 0, "new_captions": 0}
    captions = {""}  # caption dropout trains on the empty one
    framing, random = framing_of(recipe.data), Random(recipe.seed)
    framed = ((c, v) for record in records for v in framing.views(record.id, random) for c in record.candidates)
    for part in _chunks(framed, CHUNK):
        pictures = [(c, view) for c, view in part if c.bytes is not None or c.path is not None]
        counts[kind] += len(pictures)
        counts[f"new_{kind}"] += cache.encode_media(*zip(*pictures, strict=True)) if pictures else 0
        captions.update(caption.text for candidate, _ in part for caption in candidate.captions)
    captions.update(record.prompt for record in records)
    counts["captions"], counts["new_captions"] = len(captions), cache.encode_captions(sorted(captions))
    if not counts[kind]:
        raise ConfigError(f"{arguments.store}: holds no {'pictures' if kind == 'images' else kind} to encode")

    seconds = time.perf_counter() - start
    if arguments.json:
        told = {"cache": str(folder), "resolution": cache.resolution, **counts, "seconds": seconds}
        print(json.dumps(told, indent=1))
        return 0
    frames = "" if cache.cut is None else f", {cache.cut.num_frames} frames"
    print(f"{folder}: {cache.resolution} x {cache.resolution} pixels{frames}, {seconds:.1f} seconds")
    for name in (kind, "captions"):
        new = counts[f"new_{name}"]
        print(f"  {name}: {new:,} encoded, {counts[name] - new:,} already there")
    return 0


def _fill_banks(recipe: Recipe, device: str | None, as_json: bool) -> int:
    """Ask the roles of a recipe about every draw that its training will ask, and say what was there already."""
    if not recipe.bank.slots:
        raise ConfigError("bank.slots: must be > 0 to fill a bank; it is the number of draws that a record sees in all")
    if device:
        raise ConfigError("--device: a bank is filled where its training runs; leave it out")

    from tqdm import tqdm

    from diffpref.training import Trainer
    from diffpref.training.banking import fill_bank

    quiet_libraries()
    start = time.perf_counter()
    trainer = Trainer(recipe)
    trainer.prepare()
    told: dict[str, dict[str, Any]] = {}
    for name, role in trainer.banked.items():
        with tqdm(disable=None if trainer.world.is_main else True, desc=name) as bar:
            for _, bar.total in fill_bank(role, trainer.plan.method, trainer.batches, trainer.updater.context, recipe):
                bar.update()
        told[name] = {"folders": [str(bank.folder) for bank in role.banks.values()], **role.counts}
    if not trainer.world.is_main:
        return 0
    seconds = time.perf_counter() - start
    if as_json:
        counts = {trainer.plan.view: len(trainer.batches.items), "slots": recipe.bank.slots}
        print(json.dumps({**counts, **told, "seconds": seconds}))
        return 0
    print(f"{len(trainer.batches.items):,} {trainer.plan.view}, {recipe.bank.slots} draws each, {seconds:.1f} seconds")
    for name, found in told.items():
        print(
            f"  {name}: {found['asked']:,} rows asked, {found['read']:,} already there ({', '.join(found['folders'])})"
        )
    return 0


def _chunks(items: Iterator[T], size: int) -> Iterator[list[T]]:
    part: list[T] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
