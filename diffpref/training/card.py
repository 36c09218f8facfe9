"""The model card that a run leaves beside its result: what was trained, from what, on what, and how to use it.

It speaks of nothing that is this machine's: of a model or data in a local folder it gives the folder's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffpref.config import Recipe, dump_yaml
from diffpref.core.assets import PREFIX
from diffpref.core.citation import bibtex
from diffpref.core.files import write_atomic
from diffpref.methods import registry as methods
from diffpref.models import registry as families
from diffpref.objectives import registry as objectives
from diffpref.training.manifest import library_versions
from diffpref.training.plan import Plan

__all__ = ["model_card", "write_model_card"]

SHOWN = ("loss", "rewards/accuracies", "rewards/margins", "errors/chosen_vs_reference", "errors/rejected_vs_reference")
LAST = 20  # lines of the log in one mean: single updates are noise


def write_model_card(
    output: Path,
    recipe: Recipe,
    plan: Plan,
    *,
    data: Mapping[str, Any],
    metrics: Sequence[Mapping[str, float]] = (),
    processes: int = 1,
) -> None:
    """Write ``README.md``; the arguments are those of `model_card`."""
    write_atomic(output / "README.md", model_card(recipe, plan, data=data, metrics=metrics, processes=processes))


def model_card(
    recipe: Recipe,
    plan: Plan,
    *,
    data: Mapping[str, Any],
    metrics: Sequence[Mapping[str, float]] = (),
    processes: int = 1,
) -> str:
    """Return the card as Markdown with the header that model hubs read.

    Args:
        recipe: of the run.
        plan: method, objectives and adapter of the recipe.
        data: how many ``pairs``, and the digest of their ``content``.
        metrics: lines of the log.
        processes: that trained together.
    """
    base, local = _shown(recipe.model.path)
    method = methods.canonical(recipe.method.name)
    named = [term.spec.name for term in plan.composition.terms]
    header: dict[str, Any] = {
        **families.get(recipe.model.family).hub,
        **({} if local or base.startswith(PREFIX) else {"base_model": base}),
        **_licence(recipe.model.path, base, local),
        "tags": sorted({"diffpref", "preference-alignment", recipe.adapter.kind, method, *named}),
    }
    told = {
        "base model": base + (f", revision {recipe.model.revision}" if recipe.model.revision else ""),
        "method": _told(method, getattr(plan.method, "model_dump", dict)()),
        "objective": "; ".join(
            _told(name, options) for term in plan.composition.effective_options for name, options in term.items()
        ),
        "trained": f"{recipe.adapter.kind}, {recipe.training.steps:,} updates of"
        f" {recipe.training.records_per_update} {plan.view}, learning rate {recipe.optim.learning_rate:g}",
        "data": f"{_shown(recipe.data.source)[0]}: {data[plan.view]:,} {plan.view}, digest `{data['content']}`",
        "seed": str(recipe.seed),
        "libraries": ", ".join(f"{name} {version}" for name, version in library_versions().items()),
    }
    launch = "diffpref train" if processes == 1 else f"accelerate launch --num_processes {processes} -m diffpref.train"
    return "\n".join(
        [
            f"---\n{dump_yaml(header)}---",
            f"# {base} aligned with {method}\n",
            "| | |\n| --- | --- |",
            *(f"| {name} | {text} |" for name, text in told.items()),
            "\nEvery setting is in `config.yaml`, every update in `metrics.jsonl`."
            f" To train it again: `{launch} config.yaml`.",
            f"\n## Use\n\n```python\n{_use(recipe, plan.adapter.folder, base)}\n```",
            *_measured(metrics),
            f"\n## Cite\n\n```bibtex\n{_citations(method, named)}\n```\n",
        ]
    )


def _shown(path: str) -> tuple[str, bool]:
    """Return how a path is spoken of, and whether it lies on this machine only."""
    local = not path.startswith(PREFIX) and (Path(path).exists() or Path(path).is_absolute())
    return (Path(path).name if local else path), local


def _licence(path: str, base: str, local: bool) -> dict[str, str]:
    """The licence is the base model's: as its own card says, else wherever the base comes from."""
    if path.startswith(PREFIX):
        return {"license": "apache-2.0"}
    card = Path(path) / "README.md"
    found = re.search(r"^license: *([\w.+-]+) *$", card.read_text(encoding="utf-8"), re.M) if card.is_file() else None
    if found:
        return {"license": found[1]}
    link = {} if local else {"license_link": f"https://huggingface.co/{base}"}
    return {"license": "other", "license_name": "as-the-base-model", **link}


def _told(name: str, options: Mapping[str, Any]) -> str:
    values = {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in options.items()}
    listed = ", ".join(f"{key} {value}" for key, value in values.items())
    return f"{name} ({listed})" if listed else name


def _use(recipe: Recipe, folder: str, base: str) -> str:
    family = families.get(recipe.model.family)
    if base.startswith(PREFIX):
        return "from diffpref.core.assets import resolve\n" + family.usage(f'resolve("{base}")', folder)
    return family.usage(f'"{base}"', folder)


def _measured(metrics: Sequence[Mapping[str, float]]) -> list[str]:
    """Return a table of the first and the last lines of the log; validation scores of the last drawing."""
    if not metrics:
        return []
    rows = []
    for name in dict.fromkeys([*SHOWN, *(name for row in metrics for name in row if name.startswith("eval/"))]):
        values = [row[name] for row in metrics if name in row]
        if values:
            end = values[-1:] if name.startswith("eval/") else values[-LAST:]
            rows.append(f"| {name} | {values[0]:.4g} | {sum(end) / len(end):.4g} |")
    last = min(LAST, len(metrics))
    note = f"By training itself, on its own pairs; the end is the mean of the last {last} logged updates."
    return [f"\n## Measured\n\n{note}\n\n| | first | end |\n| --- | --- | --- |", *rows]


def _citations(method: str, named: Sequence[str]) -> str:
    sources = [str(getattr(methods.get(method), "source", "")), *(objectives.get(name).spec.source for name in named)]
    entries: dict[str, str] = {}
    for entry in (entry for source in sources for entry in bibtex(source)):
        key = entry.partition(",")[0]
        entries[key] = max(entries.get(key, ""), entry, key=len)
    return "\n\n".join(entries.values())
