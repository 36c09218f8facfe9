"""Choose how the trained SD3-class pipeline is sampled, measure it, and put it into the package with its card.

Run ``python -m diffpref.pretraining.bundle_sd3 --trained runs/pretraining`` after `diffpref.pretraining.sd3`. Guidance
is chosen on captions of the split ``seen``; what the card tells of ``unseen`` was measured once, with what was chosen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffpref.core.assets import ASSETS
from diffpref.core.files import publish_folder
from diffpref.models import DenoiserFamily, load_family
from diffpref.models.roles import NetworkRole
from diffpref.pretraining.bundle import ROOM, Search, copy_model, measure_pipeline, read_stage
from diffpref.pretraining.card import write_card
from diffpref.pretraining.samples import draw_pool
from diffpref.pretraining.sd3 import FEW, USUAL
from diffpref.sampling import Sampler, SamplerSettings

__all__ = ["main"]

STEPS, GUIDANCE = 12, (1.0, 1.5, 2.0, 3.0, 4.5)
SEARCHED, OTHERS, LONG = 100, 150, 50
"""Captions of the search; of the splits measured beside ``unseen``; and of those that are also drawn with as many zeros
in T5's place as the pipeline's default."""

NOTE = """VAE and text encoders are those of `bundled:shapes-sdxl`. There is no T5, so diffusers is told so:

```python
from diffusers import StableDiffusion3Pipeline
from diffpref.core.assets import resolve

pipe = StableDiffusion3Pipeline.from_pretrained(
    resolve("bundled:shapes-sd3"), text_encoder_3=None, tokenizer_3=None
)
picture = pipe(
    "a red circle left of a blue square",
    num_inference_steps={steps},
    guidance_scale={guidance:g},
    max_sequence_length={few},
).images[0]
```

`max_sequence_length` (in recipes `model.max_sequence_length`) is how many zeros stand in T5's place. The fewer, the
sooner a picture is there; {usual} is the pipeline's default, measured in the last row.

The bundled round `rounds/shapes_sd3` samples with guidance {roomy:g}, where preferences have more to gain."""


def main(
    trained: Path = Path("runs/pretraining"),
    assets: Path = ASSETS / "shapes",
    num_inference_steps: int = STEPS,
    limit: int | None = None,
) -> None:
    """Copy the pipeline to the assets.

    Args:
        trained: the folder of all working folders.
        assets: where the model goes.
        num_inference_steps: of every picture.
        limit: captions of a split to measure, and of the search; None: all that are unseen, fewer of the others.
    """
    family = load_family("sd3", str(trained / "sd3" / "model"))
    family.settle_length(FEW)
    searched = min(SEARCHED, limit or SEARCHED)

    def share_right(settings: SamplerSettings) -> float:
        pool = draw_pool(_sampler(family, settings), "seen", searched, 1, seed=2)
        return float(np.mean(pool.num_right == 6))

    size = min(50, searched)
    grid = [SamplerSettings(num_inference_steps, guidance, batch_size=size) for guidance in GUIDANCE]
    told = f"search: all facts right, seen ({searched} captions)"
    search = Search(told, {settings: share_right(settings) for settings in grid})
    best, roomy = search.best(), search.best(ROOM)
    measured = search.measured()
    for settings in dict.fromkeys((best, roomy)):
        measured |= measure_pipeline(family, settings, seed=3, limit=limit, splits=("unseen",))
    measured |= measure_pipeline(family, best, seed=3, limit=limit or OTHERS, splits=("seen", "held_out"))
    family.settle_length(USUAL)
    pool = draw_pool(_sampler(family, best), "unseen", min(LONG, limit or LONG), 1, seed=3)
    name = f"all facts right, unseen ({len(pool.captions)} captions), {best}, {USUAL} zeros for T5"
    measured[name] = float(np.mean(pool.num_right == 6))
    note = NOTE.format(
        steps=num_inference_steps, guidance=best.guidance_scale, roomy=roomy.guidance_scale, few=FEW, usual=USUAL
    )
    with publish_folder(assets / "sd3", replace=True) as folder:
        copy_model(trained / "sd3" / "model", folder)
        stages = [read_stage(trained, "sd3", "sd3", 0)]
        write_card(folder, "The SD3-class pipeline of the shapes world", stages, measured, note=note)


def _sampler(family: DenoiserFamily, settings: SamplerSettings) -> Sampler:
    return Sampler(family, NetworkRole(family, family.network), settings)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
