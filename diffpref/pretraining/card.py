"""The card that each bundled model carries: how it was made, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffpref.core.files import sha256, write_atomic, write_json

__all__ = ["write_card"]


def write_card(
    folder: Path, title: str, module: str, steps: int, seed: int, seconds: float, measured: Mapping[str, float]
) -> None:
    """Write ``README.md`` and ``measured.json`` into a model folder.

    Args:
        folder: the saved model.
        title: first line of the card.
        module: the module that ``python -m`` runs to make the model again.
        steps: updates.
        seed: the seed of the run.
        seconds: training time.
        measured: what was measured, in shares of one unless the name says otherwise.
    """
    numbers = "\n".join(f"| {name} | {value:.4f} |" for name, value in measured.items())
    weights = sorted(p for p in folder.rglob("*.safetensors"))
    sums = "\n".join(f"| {p.relative_to(folder)} | {p.stat().st_size:,} | `{sha256(p)}` |" for p in weights)
    write_json(folder / "measured.json", dict(measured))
    write_atomic(
        folder / "README.md",
        f"""# {title}

Part of diffpref's procedural shapes world; Apache-2.0. It is imperfect on purpose and of no use on photographs.

```bash
python -m {module} --output OUTPUT --steps {steps} --seed {seed}
```

{steps} updates, seed {seed}, {seconds / 60:.1f} minutes.

| measured | value |
| --- | --- |
{numbers}

| file | bytes | sha256 |
| --- | --- | --- |
{sums}
""",
    )
