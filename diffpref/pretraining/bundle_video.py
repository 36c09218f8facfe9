"""Choose how the trained text-to-video pipeline is sampled, measure it, and put it into the package with its card.

Run ``python -m diffpref.pretraining.bundle_video --trained runs/pretraining`` after `diffpref.pretraining.video`.
Guidance is chosen on captions of the split ``seen``; what the card tells of ``unseen`` was measured once, with what was
chosen. The card also tells how far the oracle that measures can be trusted: on renders, and on their reconstructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from diffpref.core.assets import ASSETS
from diffpref.core.files import publish_folder, read_json
from diffpref.core.randomness import Random, hash_key
from diffpref.models import DenoiserFamily, load_family
from diffpref.models.roles import NetworkRole
from diffpref.pretraining.bundle import ROOM, Search, copy_model, read_stage
from diffpref.pretraining.card import write_card
from diffpref.pretraining.scenes import to_pictures, to_tensor
from diffpref.sampling import Sampler, SamplerSettings
from diffpref.shapes.motion import NUM_FRAMES, SPLITS, MovingCaption, moving_captions, render_clip
from diffpref.shapes.motion_oracle import MOTION_FACTS, motion_facts

__all__ = ["ReadClips", "draw_clips", "main", "trust_in_the_oracle"]

STEPS, GUIDANCE = 12, (1.0, 2.0, 4.0, 7.0)
SEARCHED = 60  # captions

NOTE = """The VAE, through which clips go frame by frame, is that of `bundled:shapes-sdxl`.

```python
from diffusers import TextToVideoSDPipeline
from diffpref.core.assets import resolve

pipe = TextToVideoSDPipeline.from_pretrained(resolve("bundled:shapes-video"))
frames = pipe(
    "a red circle moving left slowly",
    height=32,
    width=32,
    num_frames={frames},
    num_inference_steps={steps},
    guidance_scale={guidance:g},
).frames[0]
```

A clip has {frames} frames, eight a second: `num_frames: {frames}` wherever diffpref draws.
The bundled round `rounds/shapes_video` samples with guidance {roomy:g}."""


@dataclass(frozen=True)
class ReadClips:
    """Clips as the oracle of motion read them.

    Args:
        clips: N arrays (F, H, W, 3) uint8.
        captions: what each was drawn for.
    """

    clips: Sequence[np.ndarray]
    captions: Sequence[MovingCaption]

    @property
    def table(self) -> np.ndarray:
        """(N, 5) bool: which of `MOTION_FACTS` hold."""
        read = [motion_facts(clip, caption) for clip, caption in zip(self.clips, self.captions, strict=True)]
        return np.array([list(found.values()) for found in read])

    def shares(self) -> dict[str, float]:
        """Return the share of clips with each fact, and with those that belong together."""
        table = self.table
        columns = {fact: table[:, k] for k, fact in enumerate(MOTION_FACTS)}
        return {
            "all facts right": float(table.all(1).mean()),
            "shape and colour right": float((columns["shape"] & columns["colour"]).mean()),
            "direction and speed right": float((columns["direction"] & columns["speed"]).mean()),
            **{fact: float(column.mean()) for fact, column in columns.items()},
        }


def draw_clips(
    family: DenoiserFamily, settings: SamplerSettings, split: str, per_caption: int, seed: int, limit: int | None = None
) -> ReadClips:
    """Draw clips for the first captions of a split, all of them unless there is a ``limit``."""
    shown = [caption for caption in moving_captions(split)[:limit] for _ in range(per_caption)]
    sampler = Sampler(family, NetworkRole(family, family.network), settings)
    seeds = [hash_key(seed, "clip", split, number) for number in range(len(shown))]
    drawn = sampler([str(caption) for caption in shown], seeds)
    return ReadClips([clip.frames for clip in drawn], shown)


@torch.no_grad()
def trust_in_the_oracle(vae: AutoencoderKL, limit: int | None = None) -> dict[str, float]:
    """Return the share of renders, one of each caption, and of reconstructions of them that have all facts."""
    captions = [caption for split in SPLITS for caption in moving_captions(split)][:limit]
    random = Random(5)
    renders = [render_clip(caption, random.numpy("trust", number)) for number, caption in enumerate(captions)]
    again = [to_pictures(vae.decode(vae.encode(to_tensor(clip)).latent_dist.mode()).sample) for clip in renders]
    return {
        f"oracle accepts renders ({len(captions)})": ReadClips(renders, captions).shares()["all facts right"],
        f"oracle accepts reconstructions ({len(captions)})": ReadClips(again, captions).shares()["all facts right"],
    }


def main(
    trained: Path = Path("runs/pretraining"),
    assets: Path = ASSETS / "shapes",
    num_inference_steps: int = STEPS,
    per_caption: int = 5,
    limit: int | None = None,
) -> None:
    """Copy the pipeline to the assets.

    Args:
        trained: the folder of all working folders.
        assets: where the model goes.
        num_inference_steps: of every clip.
        per_caption: clips of each caption that are measured; the search draws one.
        limit: captions of a split to measure, of the search, and of the renders; None: all.
    """
    family = load_family("unet3d", str(trained / "video" / "model"))
    searched = min(SEARCHED, limit or SEARCHED)

    def share_right(settings: SamplerSettings) -> float:
        return draw_clips(family, settings, "seen", 1, seed=2, limit=searched).shares()["all facts right"]

    size = min(20, limit or 20)
    grid = [SamplerSettings(num_inference_steps, g, batch_size=size, num_frames=NUM_FRAMES) for g in GUIDANCE]
    told = f"search: all facts right, seen ({searched} clips)"
    search = Search(told, {settings: share_right(settings) for settings in grid})
    best, roomy = search.best(), search.best(ROOM)
    measured = {**read_json(trained / "video" / "model" / "measured.json"), **search.measured()}
    for settings in dict.fromkeys((best, roomy)):
        found = draw_clips(family, settings, "unseen", per_caption, seed=3, limit=limit)
        how = f"unseen ({len(found.clips)} clips), {settings}"
        measured |= {f"{name}, {how}": share for name, share in found.shares().items()}
    assert family.vae is not None
    measured |= trust_in_the_oracle(family.vae, limit)
    note = NOTE.format(
        steps=num_inference_steps, guidance=best.guidance_scale, roomy=roomy.guidance_scale, frames=NUM_FRAMES
    )
    with publish_folder(assets / "video", replace=True) as folder:
        copy_model(trained / "video" / "model", folder)
        stages = [read_stage(trained, "video", "video", 0)]
        write_card(folder, "The text-to-video pipeline of the shapes world", stages, measured, note=note)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
