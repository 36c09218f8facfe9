"""Running a loop: round after round a store and a run, each an ordinary one. What was done is not done again."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffpref.config import Data, Recipe, dump_yaml, load_yaml
from diffpref.core.contracts import Judgement, Record
from diffpref.core.errors import ConfigError, DataError
from diffpref.core.files import write_atomic
from diffpref.core.randomness import hash_key
from diffpref.data import Store, open_records, pair_view, read_store, score_of, usable_records
from diffpref.generation import load_prompts
from diffpref.generation.candidates import said
from diffpref.generation.claims import share_of_work
from diffpref.loops.asking import Asked, Judging, Nothing, Told
from diffpref.loops.drawing import Judged, RoundData, draw_round
from diffpref.loops.judging import load_rewards
from diffpref.loops.loop_recipe import LoopRecipe, draw_settings, method_of, round_folder, round_recipe
from diffpref.loops.methods import LoopMethod
from diffpref.loops.opening import pick_device
from diffpref.loops.players import Players, identity
from diffpref.loops.progress import Progress
from diffpref.loops.stage import Drawer, Iterate, Stage
from diffpref.models import registry as families
from diffpref.training import Trainer, continue_run, make_plan
from diffpref.training.items import score_settings

__all__ = ["check_loop", "run_loop"]

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
FREE = frozenset({"output", "rounds"})
"""What may differ when a loop goes on: it may be moved, and it may have more rounds."""
POLL = 0.5


def check_loop(recipe: LoopRecipe) -> LoopMethod:
    """Check everything that can be known before anything is loaded, the runs of the first two rounds included.

    Raises:
        ConfigError: what is wrong, a line each.
    """
    method = method_of(recipe)
    draw_settings(recipe)
    for number in range(min(2, recipe.rounds)):
        stage = Stage(number, recipe.rounds, (Iterate(),) * (number + 1), (Iterate(),) * number)
        make_plan(round_recipe(recipe, method.training(stage), stage))
    return method


def run_loop(
    recipe: LoopRecipe,
    judge: Judging | None = None,
    tell: Callable[[str, int, int], None] = lambda stage, there, all_of_them: None,
) -> Progress:
    """Run a loop to its end, from wherever it stands.

    Args:
        recipe: what to do.
        judge: asked instead of the recipe's: a reward, a judge, or a function (answers, prompts) -> scores.
        tell: called with (what is done, parts there, parts in all) while data are drawn.

    Raises:
        ConfigError: a recipe that does not fit itself, or the loop in the folder.
        DataError: a round gives nothing to train on.
    """
    if judge is not None and recipe.judge is None:
        recipe = recipe.model_copy(update={"judge": _named(judge)})
    method, output = check_loop(recipe), Path(recipe.output)
    is_main = share_of_work()[0] == 0
    progress = Progress.open(output, recipe.loop.name, recipe.rounds)
    if is_main:
        _keep_recipe(recipe, output / CONFIG)
        progress.write()
    while progress.round < recipe.rounds:
        stage = progress.stage_of(progress.round)
        logger.info("round %d of %d", stage.round + 1, recipe.rounds)
        started = time.perf_counter()
        _tell_stage(progress, "draw", is_main)
        store = _draw(recipe, method, stage, judge, tell)
        drawn = time.perf_counter()
        _tell_stage(progress, "train", is_main)
        result, metrics = _train(recipe, method, stage)
        told = {
            "records": len(store),
            "taught": sum(bool(record.judgements) for record in store),
            "data": store.digest,
            "judge": _mean_scores(store, recipe.judge.name if recipe.judge else None),
            "train": metrics,
            "seconds": {"draw": round(drawn - started, 1), "train": round(time.perf_counter() - drawn, 1)},
        }
        if is_main:
            following = method.advance(stage, result, round_folder(recipe, stage.round) / "next")
            progress.finish(result, following, told)
        else:
            progress = _wait(progress)
    return progress


def _named(judge: Judging) -> Any:
    from diffpref.config import Named

    info = getattr(judge, "info", None)
    name = str(getattr(info, "name", "") or getattr(judge, "__name__", "") or type(judge).__name__)
    return Named(name=name if name.isidentifier() and name[0] != "_" else "judge", options={})


def _tell_stage(progress: Progress, stage: str, is_main: bool) -> None:
    if is_main:
        progress.begin(stage)


def _wait(progress: Progress) -> Progress:
    """Wait until the main process has written that the round has ended."""
    while True:
        found = Progress.open(progress.output, progress.method, progress.rounds)
        if found.round > progress.round:
            return found
        time.sleep(POLL)


def _keep_recipe(recipe: LoopRecipe, path: Path) -> None:
    """Write the recipe, or compare it with the one that the loop began with.

    Raises:
        ConfigError: they differ in what decides the numbers.
    """
    value = recipe.model_dump(mode="json")
    if path.is_file():
        found = load_yaml(path)
        differing = sorted(name for name in value if name not in FREE and found.get(name) != value[name])
        if differing:
            raise ConfigError(
                f"{path.parent} holds a loop of another recipe; it differs in {', '.join(differing)}. Choose another"
                " output folder, or remove this one"
            )
    write_atomic(path, dump_yaml(value))


# ------------------------------------------------------------ data


def _draw(
    recipe: LoopRecipe,
    method: LoopMethod,
    stage: Stage,
    judge: Judging | None,
    tell: Callable[[str, int, int], None],
) -> Store:
    folder = round_folder(recipe, stage.round) / "data"
    drawers, asks = method.drawers(stage), method.asks(stage)
    iterates = list(dict.fromkeys(i for d in drawers for i in (d.iterate, d.mixed_with) if i is not None))
    if asks == "implicit":
        iterates = list(dict.fromkeys([*iterates, stage.policy, stage.initial]))
    device = pick_device(None)
    asked = _asked(recipe, judge, device) if asks == "judge" else None
    feed = method.feed(stage)
    settings = draw_settings(recipe)
    data = RoundData(
        method,
        stage,
        _records(recipe, method, stage),
        recipe.seed,
        feed.part if feed.source != "round" else stage.round,
        {iterate: identity(iterate, recipe.model) for iterate in iterates},
        vars(settings) if drawers else {},
        f"{asked.name}@{asked.version} {asked.scale:g}" if asked else asks,
        recipe.unit_size,
    )
    players = Players(recipe.model, device, iterates) if iterates and not _is_there(folder) else None
    return draw_round(
        data,
        folder,
        lambda drawer: _drawing(players, drawer, settings),
        asked or _without_judge(players, stage, asks),
        lambda there, total: tell(f"round {stage.round}", there, total),
    )


def _is_there(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()


def _drawing(players: Players | None, drawer: Drawer, settings: Any) -> Any:
    assert players is not None
    return players.drawing(drawer, settings)


def _asked(recipe: LoopRecipe, judge: Judging | None, device: str) -> Asked:
    assert recipe.judge is not None
    found = judge if judge is not None else load_rewards([recipe.judge], device, pairs=True)[recipe.judge.name]
    return Asked(found, recipe.judge.name, recipe.pair_scale)


def _without_judge(players: Players | None, stage: Stage, asks: str) -> Judged:
    if asks == "nothing":
        return lambda records: [(record, Nothing()) for record in records]
    assert players is not None
    return lambda records: [
        (record, Told(players.implicit_rewards(record, stage.policy, stage.initial))) for record in records
    ]


def _records(recipe: LoopRecipe, method: LoopMethod, stage: Stage) -> list[Record]:
    """Return what the round begins with."""
    feed, parts = method.feed(stage), method.num_parts(recipe.rounds)
    texts = families.get(recipe.model.family).likelihood == "tokens"
    if feed.source == "round":
        found = list(read_store(stage.stores[feed.part], verify="counts"))
    elif feed.source == "data" or (feed.source == "either" and recipe.data is not None):
        assert recipe.data is not None
        found = _part(_given(recipe.data, texts), feed.part, parts)
    else:
        assert recipe.prompts is not None
        prompts = _part(list(dict.fromkeys(load_prompts(recipe.prompts))), feed.part, parts)
        chat = bool(recipe.sampling.get("chat"))
        found = [
            Record(
                id=f"{hash_key(recipe.seed, 'record', prompt):016x}",
                prompt=prompt,
                candidates=(),
                source="loop",
                meta=said(prompt) if chat else {},
            )
            for prompt in prompts
        ]
    if feed.keep is not None:
        found = [replace(record, candidates=record.candidates[: feed.keep]) for record in found]
    return found


def _part(values: Sequence[Any], part: int, parts: int) -> list[Any]:
    """Return one of several equal parts, in order; what is left over is in none.

    Raises:
        DataError: there are fewer values than parts.
    """
    size = len(values) // parts
    if not size:
        raise DataError(f"{len(values)} prompts or records cannot be divided among {parts} rounds; give more")
    return list(values[part * size : (part + 1) * size])


def _given(data: Data, texts: bool) -> list[Record]:
    """Return the records of a source, with the judgements that its pairs follow from; single answers have none."""
    opened = open_records(data.source, columns=data.columns, on_bad_shard=data.on_bad_shard, texts=texts)
    records = list(usable_records(opened, limit=data.max_unusable))
    several = [number for number, record in enumerate(records) if len(record.candidates) > 1]
    if not several:
        return records
    pairs = pair_view(
        [records[number] for number in several],
        data.pairing,
        score_settings(data)[0],
        min_gap=data.min_gap,
        drop_ties=data.drop_ties,
        drop_identical=data.drop_identical,
        judgements=data.judgements,
        max_unusable=data.max_unusable,
    )
    found: dict[int, list[Judgement]] = {}
    for pair in pairs:
        judgement = Judgement(pair.chosen, pair.rejected, pair.probability, pair.weight)
        found.setdefault(several[pair.record_index], []).append(judgement)
    return [
        replace(record, judgements=tuple(found.get(number, ())))
        for number, record in enumerate(records)
        if number in found or len(record.candidates) == 1
    ]


def _mean_scores(store: Store, name: str | None) -> dict[str, float]:
    """Return the mean score of the candidates of a round, to see a loop getting better."""
    scores = [
        value
        for record in store
        for candidate in record.candidates
        if name is not None and math.isfinite(value := score_of(candidate, name))
    ]
    return {"mean": round(math.fsum(scores) / len(scores), 6), "candidates": len(scores)} if scores else {}


# ------------------------------------------------------------ training


def _train(recipe: LoopRecipe, method: LoopMethod, stage: Stage) -> tuple[Iterate, dict[str, float]]:
    training = method.training(stage)
    settings: Recipe = round_recipe(recipe, training, stage)
    if training.continues and stage.round:
        continue_run(round_folder(recipe, stage.round - 1) / "run", Path(settings.output))
    trainer = Trainer(settings)
    output = trainer.fit()
    folder = str(output / trainer.plan.adapter.folder)
    result = Iterate(lora=folder) if trainer.plan.adapter.has_base else Iterate(model=folder)
    return result, _last(output)


def _last(output: Path) -> dict[str, float]:
    from diffpref.training.log import read_metrics

    metrics = read_metrics(output / "metrics.jsonl")
    kept = ("step", "loss", "rewards/accuracies", "rewards/margins")
    return {name: metrics[-1][name] for name in kept if metrics and name in metrics[-1]}
