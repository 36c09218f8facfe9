"""The bundled SD3-class pipeline: what its card says, what stock diffusers loads, what is drawn."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffpref.core.assets import ASSETS, resolve
from diffpref.core.files import read_json, sha256
from diffpref.loops import load_alignment
from diffpref.loops.opening import load_model, make_sampler, sampler_settings
from diffpref.shapes.grammar import captions
from diffpref.shapes.oracle import num_facts_right

FOLDER = Path(resolve("bundled:shapes-sd3"))
STOCK = """
import sys
sys.modules["diffpref"] = None  # whoever needs it fails
import torch
from diffusers import StableDiffusion3Pipeline
pipe = StableDiffusion3Pipeline.from_pretrained(sys.argv[1], text_encoder_3=None, tokenizer_3=None)
parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
assert {str(p.dtype) for part in parts for p in part.parameters()} == {"torch.float32"}
asked = "a red circle left of a blue square"
assert pipe(asked, num_inference_steps=2, max_sequence_length=16).images[0].size == (64, 64)
"""


@cache
def _sampler() -> Any:
    """Return a sampler as the bundled round makes it."""
    torch.set_num_threads(1)
    recipe = load_alignment("rounds/shapes_sd3", {"output": "unused", "generation.batch_size": 8})
    family = load_model(recipe.model, "cpu")
    (settings,) = sampler_settings(recipe.generation, family)
    return make_sampler(family, settings, "fp32")


def test_the_card_tells_command_licence_measurements_and_the_true_checksums() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in card and "python -m diffpref.pretraining.sd3 --output" in card and "minutes" in card
    for told, value in read_json(FOLDER / "measured.json").items():
        assert f"| {told} | {value:.4g} |" in card
    weights = sorted(FOLDER.rglob("*.safetensors"))
    assert weights and re.findall(r"`([0-9a-f]{64})`", card) == [sha256(path) for path in weights]


def test_the_round_draws_as_was_measured_and_leaves_room() -> None:
    how = _sampler().settings
    told = f"all facts right, unseen (500 captions), {how.solver}, {how.num_inference_steps} steps, guidance"
    (share,) = [
        value for name, value in read_json(FOLDER / "measured.json").items() if name == f"{told} {how.guidance_scale:g}"
    ]
    assert 0.35 <= share <= 0.70
    page = (Path(__file__).parents[2] / "docs" / "shapes.md").read_text(encoding="utf-8")
    assert f"{100 * share:.1f} % at guidance {how.guidance_scale:g}" in page


def test_all_assets_together_are_small() -> None:
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 50e6
    assert {path.suffix for path in FOLDER.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".md"}


def test_some_pictures_are_right_and_drawn_again_they_are_the_same() -> None:
    shown = captions("unseen")[:8]
    pictures = _sampler()([str(caption) for caption in shown], list(range(8)))
    again = _sampler()([str(shown[5])], [5])[0]
    assert np.array_equal(again, pictures[5])
    right = [num_facts_right(picture, caption) for picture, caption in zip(pictures, shown, strict=True)]
    assert sum(right) >= 0.75 * 6 * 8 and 6 in right


@pytest.mark.slow
def test_stock_diffusers_loads_it_without_diffpref(tmp_path: Path) -> None:
    words = [sys.executable, "-c", STOCK, str(FOLDER)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
