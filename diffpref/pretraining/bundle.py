"""Measure the trained models and put them into the package.

Run ``python -m diffpref.pretraining.bundle --trained runs/pretraining`` after the VAE, the text encoders, the UNet, the
samples and the three scorers. Every folder gets a card: commands, steps, seed, minutes, what was measured, sha256.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffpref.core.assets import ASSETS
from diffpref.core.files import publish_folder, read_json, write_json
from diffpref.models import DenoiserFamily, load_family
from diffpref.models.roles import NetworkRole
from diffpref.pretraining.card import Stage, write_card
from diffpref.pretraining.samples import draw_pool
from diffpref.sampling import Sampler, SamplerSettings
from diffpref.shapes.grammar import SPLITS, captions
from diffpref.shapes.oracle import FACTS, facts

__all__ = ["ROOM", "Search", "copy_model", "main", "measure_pipeline", "read_stage"]

ROOM = 0.7
"""The bundled rounds sample so that at most this share is right: preferences are to have something to gain."""

SCORERS = {"clip": "CLIP scorer", "pickscore": "PickScore", "hps": "HPS scorer"}


@dataclass(frozen=True)
class Search:
    """Ways to sample, and how each of them did.

    Args:
        told: what was measured.
        tried: settings -> share of the pictures or clips that are right, on captions that no other number is about.
    """

    told: str
    tried: Mapping[SamplerSettings, float]

    def best(self, most: float = 1.0) -> SamplerSettings:
        """Return the settings that do best, the first of equals, of those that do no better than ``most``."""
        low = {settings: share for settings, share in self.tried.items() if share <= most}
        return max(low, key=lambda one: low[one]) if low else min(self.tried, key=lambda one: self.tried[one])

    def measured(self) -> dict[str, float]:
        """Return all shares by what they are called on a card."""
        return {f"{self.told}, {settings}": share for settings, share in self.tried.items()}


def measure_pipeline(
    family: DenoiserFamily,
    settings: SamplerSettings,
    seed: int,
    limit: int | None = None,
    splits: Sequence[str] = SPLITS,
) -> dict[str, float]:
    """Draw one picture for every caption (at most ``limit`` of a split) and let the oracle read them."""
    sampler = Sampler(family, NetworkRole(family, family.network), settings)
    measured: dict[str, float] = {}
    for split in splits:
        num_captions = min(len(captions(split)), limit or len(captions(split)))
        pool = draw_pool(sampler, split, num_captions, 1, seed)
        found = [facts(picture, caption) for picture, caption in zip(pool.pictures, pool.captions, strict=True)]
        right = np.array([all(f.values()) for f in found])
        measured[f"all facts right, {split} ({num_captions} captions), {settings}"] = float(right.mean())
        how = f"{split}, guidance {settings.guidance_scale:g}"
        measured |= {f"{fact}, {how}": float(np.mean([f[fact] for f in found])) for fact in FACTS}
    return measured


def read_stage(trained: Path, module: str, name: str, seed: int, *arguments: str) -> Stage:
    """Return what the checkpoint in ``trained/name`` says of its run."""
    counters = read_json(trained / name / "checkpoint" / "counters.json")
    return Stage(f"diffpref.pretraining.{module}", arguments, counters["step"], seed, counters["seconds"] / 60)


def copy_model(source: Path, folder: Path) -> None:
    """Copy a pipeline without what its configs say of the folders that lent its parts."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    for path in folder.rglob("config.json"):
        settings = read_json(path)
        if settings.pop("_name_or_path", None) is not None:
            write_json(path, settings)


def main(
    trained: Path = Path("runs/pretraining"),
    assets: Path = ASSETS / "shapes",
    guidance_scale: float = 1.5,
    num_inference_steps: int = 12,
    limit: int | None = None,
) -> None:
    """Copy ``sdxl clip pickscore hps`` to the assets, each with its card.

    Args:
        trained: the folder of all working folders.
        assets: where the models go.
        guidance_scale: of the pictures that are measured, as in the demo.
        num_inference_steps: likewise.
        limit: captions of a split to measure; None takes all.
    """
    work = "runs/pretraining"
    vae, text = f"--vae {work}/vae/model", f"--text {work}/text/model"
    stages = [
        read_stage(trained, "vae", "vae", 0),
        read_stage(trained, "text", "text/text_encoder_2", 0),
        read_stage(trained, "unet", "unet", 0, vae, text),
    ]
    settings = SamplerSettings(num_inference_steps, guidance_scale, batch_size=46)
    measured = {f"VAE: {k}": v for k, v in read_json(trained / "vae" / "model" / "measured.json").items()}
    measured |= {f"text: {k}": v for k, v in read_json(trained / "text" / "model" / "measured.json").items()}
    family = load_family("sdxl", str(trained / "unet" / "model"))
    measured |= measure_pipeline(family, settings, seed=3, limit=limit)
    with publish_folder(assets / "sdxl", replace=True) as folder:
        shutil.copytree(trained / "unet" / "model", folder, dirs_exist_ok=True)
        write_card(folder, "The SDXL pipeline of the shapes world", stages, measured)
    samples, other = f"--samples {work}/samples", f"--samples {work}/hps_samples"
    arguments = {
        "clip": (text, samples),
        "pickscore": (f"--clip {work}/clip/model", samples),
        "hps": (text, other),
    }
    for name, title in SCORERS.items():
        stage = read_stage(trained, name, name, 7 if name == "hps" else 0, *arguments[name])
        with publish_folder(assets / name, replace=True) as folder:
            shutil.copytree(trained / name / "model", folder, dirs_exist_ok=True)
            numbers = read_json(trained / name / "model" / "measured.json")
            write_card(folder, f"The {title} of the shapes world", [stage], numbers)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
