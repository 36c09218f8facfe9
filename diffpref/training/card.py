"""The model card that a run leaves beside its result."""

from __future__ import annotations

from pathlib import Path

from diffpref.config import Recipe
from diffpref.core.files import write_atomic
from diffpref.methods import registry as methods
from diffpref.models import registry as families

__all__ = ["write_model_card"]


def write_model_card(output: Path, recipe: Recipe, folder: str) -> None:
    """Write ``README.md``: what was trained, how, and how to load it with plain diffusers."""
    family = families.get(recipe.model.family)
    pipeline = family.pipeline_class.__name__
    source = getattr(methods.get(recipe.method.name), "source", "")
    if folder == "lora":
        use = f'pipe = {pipeline}.from_pretrained("{recipe.model.path}")\npipe.load_lora_weights("{folder}")'
        names = pipeline
    else:
        use = (
            f'unet = UNet2DConditionModel.from_pretrained("{folder}")\n'
            f'pipe = {pipeline}.from_pretrained("{recipe.model.path}", unet=unet)'
        )
        names = f"{pipeline}, UNet2DConditionModel"
    write_atomic(
        output / "README.md",
        f"""---
library_name: diffusers
base_model: {recipe.model.path}
tags: [diffpref, preference-alignment, {recipe.method.name}]
---
# {recipe.model.path} aligned with {recipe.method.name}

{recipe.training.steps} updates, seed {recipe.seed}; every setting is in `config.yaml`, every update in `metrics.jsonl`.

```python
from diffusers import {names}
{use}
```

Method: {source}
""",
    )
