"""``diffpref caption``: captions of single candidates and paraphrases of them, added to a store."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from diffpref.cli._arguments import Parser, add_fields, build_section, overrides
from diffpref.cli._reporting import is_main, progress_bar
from diffpref.config import Named
from diffpref.loops.opening import pick_device, quiet_libraries

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Write a copy of a store with captions added, then say which."""
    from diffpref.data import read_store
    from diffpref.generation import CaptionRecipe, caption_store
    from diffpref.generation.captioners import registry as captioners
    from diffpref.generation.paraphrasers import registry as paraphrasers

    parser = Parser(
        prog="diffpref caption",
        description="Tell what each candidate of a store shows, and say that or its prompt in other words, for methods"
        " that read captions of single candidates. Flags replace the recipe's values; what an interrupted run has made"
        " is kept, and several processes share the work.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a bundled recipe")
    parser.add_argument("--device", help="where networks run; not given: the accelerator, if there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_fields(parser, CaptionRecipe)
    arguments = parser.read(argv)
    recipe = build_section(CaptionRecipe, arguments.recipe, overrides(arguments, CaptionRecipe))

    start = time.perf_counter()
    store = read_store(recipe.source)
    quiet_libraries()
    device = pick_device(arguments.device)
    captioner = _load(captioners, recipe.captioner, "captioner", device)
    paraphraser = _load(paraphrasers, recipe.paraphraser, "paraphraser", device)
    with progress_bar("record") as tell:
        made = caption_store(store, recipe.output, captioner, paraphraser, recipe.settings(), tell)
    if not is_main():
        return 0
    counts = Counter(caption.kind for record in made for one in record.candidates for caption in one.captions)
    seconds = time.perf_counter() - start
    if arguments.json:
        print(json.dumps({"store": str(made.folder), "records": len(made), "captions": counts, "seconds": seconds}))
        return 0
    print(f"{made.folder}: {len(made):,} records, {seconds:.1f} seconds")
    print("\n".join(f"  {kind}: {count:,}" for kind, count in sorted(counts.items())))
    return 0


def _load(registry: Any, named: Named | None, path: str, device: str) -> Any:
    if named is None:
        return None
    return named.validate_with(registry.get(named.name), path).load(device)
