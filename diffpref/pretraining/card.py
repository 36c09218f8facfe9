"""The card that each bundled model carries: how it was made, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffpref.core.files import sha256, write_atomic, write_json

__all__ = ["Stage", "write_card"]


@dataclass(frozen=True)
class Stage:
    """One training run behind a model.

    Args:
        module: what ``python -m`` runs.
        arguments: further arguments, as typed.
        steps: updates.
        seed: of the run.
        minutes: training time.
    """

    module: str
    arguments: Sequence[str]
    steps: int
    seed: int
    minutes: float

    @property
    def command(self) -> str:
        """What to type to run it again."""
        name = self.module.rsplit(".", 1)[-1]
        words = [*self.arguments, f"--output runs/pretraining/{name} --steps {self.steps} --seed {self.seed}"]
        return f"python -m {self.module} " + " ".join(words)


def write_card(
    folder: Path,
    title: str,
    stages: Sequence[Stage],
    measured: Mapping[str, float],
    world: str = "shapes",
    useless_on: str = "photographs",
    note: str = "",
) -> None:
    """Write ``README.md`` and ``measured.json`` into a model folder.

    Args:
        folder: the saved model.
        title: first line of the card.
        stages: how it came about, in order.
        measured: what was measured: shares of one unless the name says otherwise.
        world: to which it belongs.
        useless_on: what no one should use it on.
        note: what else is to be said, in Markdown.
    """
    commands = "\n".join(stage.command for stage in stages)
    times = ", ".join(f"{s.module.rsplit('.', 1)[-1]} {s.minutes:.1f} minutes" for s in stages)
    numbers = "\n".join(f"| {name} | {value:.4g} |" for name, value in measured.items())
    more = f"\n{note.strip()}\n" if note else ""
    weights = sorted(folder.rglob("*.safetensors"))
    sums = "\n".join(f"| {p.relative_to(folder)} | {p.stat().st_size:,} | `{sha256(p)}` |" for p in weights)
    write_json(folder / "measured.json", dict(measured))
    write_atomic(
        folder / "README.md",
        f"""# {title}

Part of diffpref's procedural {world} world; Apache-2.0. It is imperfect on purpose and of no use on {useless_on}.
{more}
```bash
{commands}
```

On two shared CPU cores: {times}.

| measured | value |
| --- | --- |
{numbers}

| file | bytes | sha256 |
| --- | --- | --- |
{sums}
""",
    )
