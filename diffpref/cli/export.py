"""``diffpref export``: what a run has trained, in the form that another program reads."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffpref.cli._arguments import Parser
from diffpref.core.errors import ConfigError

if TYPE_CHECKING:
    from diffpref.config import Recipe

__all__ = ["main"]

FORMATS = {
    "kohya": "one .safetensors file for ComfyUI and kohya's scripts (LoRA)",
    "merged": "a folder with the whole pipeline, the LoRA folded into its denoiser",
    "diffusers": "one .safetensors file for load_lora_weights (LoRA)",
}


def main(argv: Sequence[str]) -> int:
    """Write the export and say where it lies."""
    parser = Parser(prog="diffpref export", description="Write a run's result in another form.")
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "--format", required=True, choices=FORMATS, help="; ".join(f"{name}: {text}" for name, text in FORMATS.items())
    )
    parser.add_argument("--output", required=True, metavar="PATH", help="file or folder to write; must not exist")
    parser.add_argument(
        "--precision", choices=("fp32", "fp16", "bf16"), default="fp32", help="of the numbers written; merged and kohya"
    )
    given = parser.read(argv)
    from diffpref.evaluation.run import open_run

    run, output = Path(given.run), Path(given.output)
    recipe = open_run(run)
    if output.exists():
        raise ConfigError(f"--output: {output} exists already; choose another")
    if given.format != "merged" and not (run / "lora").is_dir():
        raise ConfigError(f"--format: {given.format} is a LoRA, and {run} has trained all weights; use merged")
    if given.format == "diffusers":
        from diffpref.models.kohya import FILE, read_lora

        read_lora(run / "lora")  # a damaged file is not passed on
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / "lora" / FILE, output)
    elif given.format == "kohya":
        _kohya(run, recipe, output, given.precision)
    else:
        _merged(run, recipe, output, given.precision)
    print(f"{given.format}: {output}")
    return 0


def _kohya(run: Path, recipe: Recipe, output: Path, precision: str) -> None:
    from diffpref.core.assets import resolve
    from diffpref.models.kohya import kohya_metadata, read_lora, to_kohya, write_kohya
    from diffpref.models.loading import load_settings
    from diffpref.models.precision import DTYPES

    base, revision = resolve(recipe.model.path), recipe.model.revision
    unet = load_settings(base, "unet", "config.json", revision=revision)
    scheduler = load_settings(base, "scheduler", "scheduler_config.json", revision=revision)
    weights, settings = read_lora(run / "lora")
    metadata = kohya_metadata(
        recipe.model.family,
        str(scheduler.get("prediction_type", "epsilon")),
        int(unet.get("cross_attention_dim") or 0),
        settings,
    )
    metadata["modelspec.title"] = output.stem
    named = {
        name: t if name.endswith(".alpha") else t.to(DTYPES[precision])
        for name, t in to_kohya(weights, settings).items()
    }
    write_kohya(output, named, metadata)


def _merged(run: Path, recipe: Recipe, output: Path, precision: str) -> None:
    """Fold in float32, whatever the recipe trained in: half precision would round the update away."""
    from diffpref.core.files import publish_folder
    from diffpref.evaluation.run import apply_result
    from diffpref.loops.opening import quiet_libraries
    from diffpref.models import open_family
    from diffpref.models.precision import DTYPES

    quiet_libraries()
    family = open_family(recipe.model.model_copy(update={"precision": "fp32"}))
    apply_result(family, run)
    pipeline = family.pipeline()
    if (run / "lora").is_dir():
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    with publish_folder(output) as folder:
        pipeline.to(DTYPES[precision]).save_pretrained(folder, safe_serialization=True)
