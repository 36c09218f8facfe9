"""One update of a run done again, in memory, with everything that it was made of kept to be looked at."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffpref.config import Recipe, load_recipe
from diffpref.core.contracts import Batch, Rows, Tensors
from diffpref.core.errors import CheckpointError, ConfigError
from diffpref.models import open_family
from diffpref.models import registry as families
from diffpref.models.family import DenoiserFamily
from diffpref.plotting.step_grid import RecordView, SampleView, StepView
from diffpref.training.checkpoints import Checkpoint, list_checkpoints, open_checkpoint
from diffpref.training.forward import Forward
from diffpref.training.log import read_metrics
from diffpref.training.metrics import gradient_sizes
from diffpref.training.trainer import Trainer

__all__ = ["explain_step", "stand_at"]

logger = logging.getLogger(__name__)

SINGLE = "single"
"""What samples without a partner are called, as in the log."""


class _Seen:
    """Keeps an update's micro-batches, and what the objectives said of them."""

    def __init__(self) -> None:
        self.asked_about: list[tuple[Batch, Rows, dict[str, Tensor]]] = []
        self.forwards: Sequence[Forward] = ()

    def asked(self, batch: Batch, rows: Rows, outputs: Mapping[str, Tensors]) -> None:
        predictions = {name: out["prediction"].detach().float() for name, out in outputs.items() if "prediction" in out}
        self.asked_about.append((batch, rows, predictions))

    def judged(self, seen: Sequence[Forward]) -> None:
        self.forwards = seen


def explain_step(folder: Path, step: int) -> StepView:
    """Do update ``step`` of a run again and return everything that can be seen of it.

    The newest good checkpoint before it is loaded, and the updates between are replayed; without one, all are. Nothing
    in the run's folder is written.

    Args:
        folder: of the run.
        step: as in ``metrics.jsonl``, from 1.

    Raises:
        CheckpointError: no such run.
        ConfigError: the run has no such step, or left it out.
        DataError: its data are not what they were.
    """
    folder = Path(folder)
    recipe = _recipe_of(folder)
    if families.get(recipe.model.family).likelihood != "denoising":
        raise ConfigError(f"{folder}: what is explained is shown in pictures, and this run trains a language model")
    rows = {row["step"]: row for row in read_metrics(folder / "metrics.jsonl")}
    checkpoints = list_checkpoints(folder)
    done = max([*rows, *(int(path.name[5:]) for path in checkpoints[-1:])], default=0)
    if not 1 <= step <= done:
        raise ConfigError(f"--step: must be one of the {done} updates that {folder} has done, got {step}")
    seen = _Seen()
    with tempfile.TemporaryDirectory() as elsewhere:
        trainer, start = stand_at(recipe, folder, step - 1, Path(elsewhere))
        captions = [trainer.batches.items[index].prompt for index, _ in trainer.next_items()]
        metrics = trainer.advance(seen)
        if "loss" not in metrics:
            raise ConfigError(f"--step: update {step} was left out; {folder / 'nonfinite.json'} says why")
        records = _records(trainer, seen, captions)
    logged = rows.get(step, {}).get("loss")
    return StepView(folder.name, step, start, metrics["loss"], logged, metrics, tuple(records))


def stand_at(recipe: Recipe, folder: Path, step: int, elsewhere: Path) -> tuple[Trainer, int]:
    """Return a trainer whose state is that of a run after ``step`` updates, and the step that it was replayed from.

    It holds no lock and writes nowhere but into ``elsewhere``; do not `fit` it.

    Args:
        recipe: of the run.
        folder: of the run.
        step: updates done, from 0.
        elsewhere: a folder for what training writes.
    """
    training = recipe.training
    if training.records_per_update:  # on one process, however many there were
        shares = {"accumulation": max(1, training.records_per_update // training.batch_size)}
        training = training.model_copy(update=shares)
    cache = Path(recipe.data.cache or folder / "cache")
    _link_shards(cache, elsewhere / "cache")
    here = {
        "output": str(elsewhere / "run"),
        "data": recipe.data.model_copy(update={"cache": str(elsewhere / "cache")}),
        "training": training,
        "bank": recipe.bank.model_copy(update={"roles": []}),  # the reference is to be looked at, so it is asked
    }
    trainer = Trainer(recipe.model_copy(update=here))
    found = _checkpoint_before(folder, step)
    trainer.prepare(found)
    start = trainer.step
    if start < step:
        logger.info("replaying the updates %d to %d", start + 1, step)
    while trainer.step < step:
        trainer.advance()
    return trainer, start


def _recipe_of(folder: Path) -> Recipe:
    if not (folder / "config.yaml").is_file():
        hint = "has no config.yaml" if folder.is_dir() else "no such folder"
        raise CheckpointError(f"{folder} is not a run: {hint}")
    return load_recipe(folder / "config.yaml")


def _checkpoint_before(folder: Path, step: int) -> Checkpoint | None:
    """Return the newest good checkpoint of at most ``step`` updates; damaged ones are passed over with a warning."""
    for path in reversed(list_checkpoints(folder)):
        if int(path.name[5:]) > step:
            continue
        try:
            return open_checkpoint(path)
        except CheckpointError as error:
            logger.warning("%s; replaying from an older one", error)
    return None


def _link_shards(source: Path, target: Path) -> None:
    """Make what is encoded readable under another folder, where missing entries can be added apart from it."""
    target.mkdir(parents=True)
    for shard in source.glob("shard-*"):
        (target / shard.name).symlink_to(shard.resolve(), target_is_directory=True)


# ------------------------------------------------------------ what there is to see


def _records(trainer: Trainer, seen: _Seen, captions: Sequence[str]) -> list[RecordView]:
    """Return a view of each record of the last update, in the order of the batch."""
    family = open_family(trainer.recipe.model, "vae").to(trainer.device)
    coefficients = [term.coefficient for term in trainer.plan.composition.terms]
    losses = torch.cat([f.losses for f in seen.forwards], dim=1).double()
    total = (losses.new_tensor(coefficients) @ losses).tolist()
    sizes = [gradient_sizes(f.gradients) for f in seen.forwards]
    shares = None
    if all(size is not None for size in sizes):
        whole = torch.cat([size for size in sizes if size is not None]).double()
        shares = (whole / whole.sum()).tolist() if bool(whole.sum() > 0) else None
    asked = seen.asked_about[-trainer.recipe.training.accumulation :]
    if len(total) != sum(len(batch) for batch, _, _ in asked):
        raise ConfigError(
            f"method '{trainer.recipe.method.name}' asks about each sample at several timesteps, one by one; what can"
            " be explained is one timestep a record"
        )
    numbers = {
        name: torch.cat([f.metrics[name].reshape(-1) for f in seen.forwards]).tolist()
        for name in seen.forwards[0].metrics
        if all(len(f.metrics[name]) == len(f.finite) for f in seen.forwards)
    }
    ratios = {group: torch.cat([f.log_ratios[group] for f in seen.forwards]) for group in seen.forwards[0].log_ratios}
    views: list[RecordView] = []
    # an update that turned out to need a replay asked twice; the last question is the one that counted
    for batch, rows, predictions in asked:
        pictures = _pictures(trainer.family, family, batch, rows, predictions)
        times = rows.inputs["timesteps"]
        for b, (record, visit) in enumerate(batch.keys):
            i = len(views)
            first = next(iter(rows.groups.values())).reshape(len(batch), -1)[b, 0]
            row = {name: values[i] for name, values in numbers.items()}
            samples = []
            for group, shown in pictures.items():
                name, _, place = group.partition(" ")  # "list 2" is its third candidate
                compared = ratios.get("" if name == SINGLE else name)
                ratio = None if compared is None else compared[i, int(place)] if place else compared[i]
                samples.append(SampleView(group, shown[b], _numbers(group, row, ratio)))
            timestep = float(times[first])
            views.append(
                RecordView(
                    record=record,
                    visit=visit,
                    caption=captions[i],
                    caption_dropped=_dropped(batch, rows, b, int(first)),
                    timestep=timestep,
                    noise=float(trainer.family.schedule.place(times[first])),
                    loss=total[i],
                    gradient_share=None if shares is None else shares[i],
                    margin=row.get("rewards/margins"),
                    samples=tuple(samples),
                )
            )
    return views


def _numbers(group: str, row: Mapping[str, float], ratio: Tensor | None) -> dict[str, float]:
    own, against = row.get(f"errors/{group}"), row.get(f"errors/{group}_vs_reference")
    found: dict[str, float | None] = {
        "error, policy": own,
        "error, reference": None if own is None or against is None else own - against,
        "against reference": against,
        "log-ratio": float(ratio) if ratio is not None and ratio.dim() == 0 else None,
        "implicit reward": row.get(f"rewards/{group}"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _dropped(batch: Batch, rows: Rows, record: int, row: int) -> bool:
    """Whether the models were not told the record's own caption."""
    given = batch.conditioning[""].tensors
    return any(not torch.equal(given[name][record], rows.conditioning.tensors[name][row]) for name in given)


def _pictures(
    denoiser: DenoiserFamily, decoder: DenoiserFamily, batch: Batch, rows: Rows, predictions: Mapping[str, Tensor]
) -> dict[str, list[tuple[Any, Any, Any, Any]]]:
    """Return group -> for each record: clean, noised, what the reference takes for clean, what the policy does."""
    shown = {}
    schedule = denoiser.schedule if rows.schedule is None else rows.schedule
    for group, index in rows.groups.items():
        media = batch.media[group]
        for k, (numbers, clean) in enumerate(
            [(index, media)] if index.dim() == 1 else zip(index.unbind(1), media.unbind(1), strict=True)
        ):
            noisy, times = rows.inputs["noisy"][numbers], rows.inputs["timesteps"][numbers]
            columns = [_decoded(decoder, clean), _decoded(decoder, noisy)]
            for role in ("reference", "policy"):
                if role not in predictions:
                    columns.append([None] * len(batch))
                    continue
                implied = schedule.to_clean(predictions[role][numbers], noisy, times)
                columns.append(_decoded(decoder, implied))
            name = group or SINGLE if index.dim() == 1 else f"{group} {k}"
            there = (numbers >= 0).tolist()
            shown[name] = [(a, b, c, d) if t else (None,) * 4 for t, a, b, c, d in zip(there, *columns, strict=True)]
    return shown


def _decoded(family: DenoiserFamily, latents: Tensor) -> list[Any]:
    """Return (H, W, 3) uint8 pictures; None where latents are not finite: at pure noise no clean image is implied."""
    pixels = ((family.decode_media(latents.float().nan_to_num()) + 1) * 127.5).round().to(torch.uint8)
    good = latents.flatten(1).isfinite().all(dim=1).tolist()
    arrays = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return [array if fine else None for array, fine in zip(arrays, good, strict=True)]
