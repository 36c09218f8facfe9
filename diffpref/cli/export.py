"""``diffpref export``: what a run has trained, in the form that another program reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffpref.cli._arguments import Parser
from diffpref.core.errors import ConfigError
from diffpref.core.files import write_atomic

if TYPE_CHECKING:
    from diffpref.config import Recipe

__all__ = ["main"]

FORMATS = {
    "kohya": "one .safetensors file for ComfyUI and kohya's scripts (LoRA)",
    "merged": "a folder with the whole pipeline or language model, the LoRA folded into its weights",
    "diffusers": "one .safetensors file for load_lora_weights (LoRA)",
}

KOHYA = ("sd", "sdxl")
"""Families whose layers kohya's names are known for."""


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
    parser.add_argument("--ema", action="store_true", help="the average of training.ema instead of the last weights")
    given = parser.read(argv)
    from diffpref.evaluation.run import open_run, result_folder
    from diffpref.models import registry as families

    run, output = Path(given.run), Path(given.output)
    recipe = open_run(run)
    result = result_folder(run, ema=given.ema)
    if output.exists():
        raise ConfigError(f"--output: {output} exists already; choose another")
    if given.format == "merged":
        _merged(run, recipe, output, given.precision, given.ema)
    elif not result.name.startswith("lora"):
        raise ConfigError(f"--format: {given.format} is a LoRA, and {run} has trained all weights; use merged")
    elif families.get(recipe.model.family).likelihood != "denoising" or (result / "adapter_config.json").is_file():
        raise ConfigError(
            f"--format: {given.format} is for denoisers whose LoRA diffusers loads; {result} holds the LoRA as PEFT"
            " loads it; merged writes the whole model"
        )
    elif given.format == "kohya":
        _kohya(result, recipe, output, given.precision)
    else:
        from diffpref.models.kohya import FILE, read_lora

        read_lora(result)  # a damaged file is not passed on
        write_atomic(output, (result / FILE).read_bytes())
    print(f"{given.format}: {output}")
    return 0


def _kohya(lora: Path, recipe: Recipe, output: Path, precision: str) -> None:
    from diffpref.core.assets import resolve
    from diffpref.models.kohya import kohya_metadata, read_lora, to_kohya, write_kohya
    from diffpref.models.loading import load_settings
    from diffpref.models.precision import DTYPES

    if recipe.model.family not in KOHYA:
        raise ConfigError(f"--format kohya: is the form of {' and '.join(KOHYA)}; take diffusers or merged")
    base, revision = resolve(recipe.model.path), recipe.model.revision
    unet = load_settings(base, "unet", "config.json", revision=revision)
    scheduler = load_settings(base, "scheduler", "scheduler_config.json", revision=revision)
    weights, settings = read_lora(lora)
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


def _merged(run: Path, recipe: Recipe, output: Path, precision: str, ema: bool) -> None:
    """Fold in float32, whatever the recipe trained in: half precision would round the update away."""
    from diffpref.core.files import publish_folder
    from diffpref.evaluation.run import apply_result, result_folder
    from diffpref.loops.opening import quiet_libraries
    from diffpref.models import open_family
    from diffpref.models.precision import DTYPES

    quiet_libraries()
    family = open_family(recipe.model.model_copy(update={"precision": "fp32"}))
    apply_result(family, run, ema=ema)
    lora = result_folder(run, ema=ema).name.startswith("lora")
    with publish_folder(output) as folder:
        family.save_whole(folder, DTYPES[precision], lora)
