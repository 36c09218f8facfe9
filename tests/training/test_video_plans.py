"""Families of videos in a recipe: frames serve the objectives that compare them, and pictures are refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from PIL import Image

from diffpref.cli import main
from diffpref.config import build_recipe
from diffpref.core.contracts import Candidate, Judgement, Record
from diffpref.core.errors import ConfigError, DataError
from diffpref.core.randomness import Random
from diffpref.data import encode_png, write_store
from diffpref.data.footage import pack_frames
from diffpref.models import load_family, registry
from diffpref.models.adapters import registry as adapters
from diffpref.training import Trainer
from diffpref.training.plan import make_plan

Keys = Callable[..., dict[str, Any]]
NAMES = [name for name in registry if registry.get(name).samples == "videos"]


@pytest.mark.parametrize("name", NAMES)
def test_the_frames_of_a_video_serve_dense_dpo(recipe_keys: Keys, name: str) -> None:
    found = make_plan(build_recipe(recipe_keys(model__family=name, objective="dense_dpo", method="denoising")))
    assert {"chosen_segment_log_ratio", "rejected_segment_log_ratio"} <= set(found.names)
    assert "segment_label" in found.columns


def test_dense_dpo_is_refused_of_pictures_with_the_reason(recipe_keys: Keys) -> None:
    with pytest.raises(ConfigError, match=r"chosen_segment_log_ratio.*frames of a video, which a picture has not"):
        make_plan(build_recipe(recipe_keys(method="dense_dpo")))


def test_rare_gaps_are_those_of_pairs_by_a_score(recipe_keys: Keys) -> None:
    with pytest.raises(ConfigError, match=r"data.rarity_bins: is for pairs, and these parts take points"):
        make_plan(build_recipe(recipe_keys(method="diffusion_kto", data__rarity_bins=10)))
    with pytest.raises(ConfigError, match="rarity_bins: is of pairs by score; name one in score"):
        build_recipe(recipe_keys(data__rarity_bins=10, data__score=None))


def test_what_no_frame_gives_is_told_with_the_reason(recipe_keys: Keys) -> None:
    keys = recipe_keys(model__family="unet3d", objective="inversion_dpo", method="denoising")
    with pytest.raises(ConfigError, match="segment_kl; a segment of it is a point of an inverted trajectory") as caught:
        make_plan(build_recipe(keys))
    assert "\n" not in str(caught.value)


def test_a_bank_holds_no_frames(recipe_keys: Keys) -> None:
    keys = recipe_keys(model__family="unet3d", objective="dense_dpo", method="denoising", bank={"slots": 1})
    with pytest.raises(ConfigError, match="asks chosen_segment_log_ratio, rejected_segment_log_ratio of 'reference'"):
        make_plan(build_recipe(keys))


@pytest.mark.parametrize("name", NAMES)
def test_validation_draws_clips_of_families_that_need_no_picture(recipe_keys: Keys, name: str) -> None:
    keys = recipe_keys(model__family=name, validation={"every": 1, "prompts": ["a red circle"]})
    family: Any = registry.get(name)
    if not family.takes_opening:
        assert make_plan(build_recipe(keys)).view == "pairs"
        return
    with pytest.raises(ConfigError, match=f"validation.every: has prompts, and '{name}' animates pictures"):
        make_plan(build_recipe(keys))


def test_a_data_set_of_pictures_is_refused_in_one_line(recipe_keys: Keys, tmp_path: Path) -> None:
    family: Any = registry.get("unet3d").tiny()
    family.pipeline().save_pretrained(tmp_path / "model")
    trainer = Trainer(build_recipe(recipe_keys(model={"family": "unet3d", "path": str(tmp_path / "model")})))
    with pytest.raises(DataError, match="candidate 0: is a picture; a clip of 16 frames is expected"):
        list(trainer.steps())


def test_clips_are_refused_by_a_family_of_pictures(recipe_keys: Keys, tmp_path: Path) -> None:
    clip = Candidate(bytes=pack_frames([("png", encode_png(np.full((64, 64, 3), v, np.uint8))) for v in (0, 9)]))
    file = io.BytesIO()
    shades = [Image.new("L", (64, 64), shade) for shade in (0, 255)]
    shades[0].save(file, format="GIF", save_all=True, append_images=shades[1:])
    for one, told in ((clip, "a packed clip; a picture"), (Candidate(bytes=file.getvalue()), "a clip of 2 frames; a")):
        write_store(tmp_path / "clips", [Record("r", "p", (one, one), (Judgement(0, 1, 1.0),))], replace=True)
        with pytest.raises(DataError, match=f"record 'r', candidate 0: is .*{told}"):
            Trainer(build_recipe(recipe_keys(data__source=str(tmp_path / "clips")))).setup()


@pytest.mark.parametrize("field", ["num_frames", "frame_stride", "fps", "random_start"])
def test_how_clips_are_cut_is_refused_of_pictures(recipe_keys: Keys, field: str) -> None:
    with pytest.raises(ConfigError, match=f"data.{field}: is of clips, which family 'sdxl' does not take; leave it"):
        make_plan(build_recipe(recipe_keys(**{f"data__{field}": True if field == "random_start" else 2})))


def test_a_speed_and_a_stride_say_the_same(recipe_keys: Keys) -> None:
    with pytest.raises(ConfigError, match="frame_stride: goes without fps"):
        build_recipe(recipe_keys(data__fps=8, data__frame_stride=2))


def test_a_lora_that_diffusers_cannot_load_is_exported_within_the_whole_pipeline_only(
    recipe_keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family: Any = registry.get("unet3d").tiny()
    family.pipeline().save_pretrained(tmp_path / "model")
    run = tmp_path / "run"
    how = adapters.get("lora")(rank=4)
    groups = how.install(family, Random(0))
    with torch.no_grad():
        for parameter in (p for group in groups.values() for p in group):
            parameter.add_(0.05)
    how.save(family, family.network, run / "lora")
    keys = recipe_keys(model={"family": "unet3d", "path": str(tmp_path / "model")}, output=str(run))
    (run / "config.yaml").write_text(yaml.safe_dump(keys))
    for form in ("diffusers", "kohya"):
        assert main(["export", str(run), "--format", form, "--output", str(tmp_path / "x.safetensors")]) == 2
        assert "holds the LoRA as PEFT loads it; merged writes the whole model" in capsys.readouterr().err
    assert main(["export", str(run), "--format", "merged", "--output", str(tmp_path / "merged")]) == 0
    plain: Any = PeftModel.from_pretrained(load_family("unet3d", str(tmp_path / "model")).network, run / "lora")
    told = {"noisy": torch.randn(1, 4, 3, 8, 8), "timesteps": torch.tensor([500])}
    conditioning = family.encode_prompt(["a"], 64)
    with torch.no_grad():
        merged = load_family("unet3d", str(tmp_path / "merged")).network
        found, wanted = (family.forward(network, told, conditioning) for network in (merged, plain.eval()))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
