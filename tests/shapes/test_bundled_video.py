"""The bundled text-to-video pipeline: what its card says, what stock diffusers loads, what is drawn."""

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

from diffpref.core.assets import resolve
from diffpref.core.files import read_json, sha256
from diffpref.core.media import Clip
from diffpref.loops import load_alignment
from diffpref.loops.opening import load_model, make_sampler, sampler_settings
from diffpref.shapes.motion import NUM_FRAMES, moving_captions
from diffpref.shapes.motion_oracle import MOTION_FACTS, num_motion_facts_right

FOLDER = Path(resolve("bundled:shapes-video"))
STOCK = """
import sys
sys.modules["diffpref"] = None  # whoever needs it fails
import torch
from diffusers import TextToVideoSDPipeline
pipe = TextToVideoSDPipeline.from_pretrained(sys.argv[1])
parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
assert {str(p.dtype) for part in parts for p in part.parameters()} == {"torch.float32"}
asked = {"height": 32, "width": 32, "num_frames": 8, "num_inference_steps": 2}
assert pipe("a red circle moving left slowly", **asked).frames.shape == (1, 8, 32, 32, 3)
"""


@cache
def _sampler() -> Any:
    """Return a sampler as the bundled round makes it."""
    torch.set_num_threads(1)
    recipe = load_alignment("rounds/shapes_video", {"output": "unused", "generation.batch_size": 8})
    family = load_model(recipe.model, "cpu")
    (settings,) = sampler_settings(recipe.generation, family)
    return make_sampler(family, settings, "fp32")


def _measured(fact: str) -> float:
    """Return a share of the clips of unseen captions as the round draws them."""
    how = _sampler().settings
    told = re.compile(rf"{fact}, unseen \(\d+ clips\), {re.escape(str(how))}")
    (share,) = [value for name, value in read_json(FOLDER / "measured.json").items() if told.fullmatch(name)]
    return float(share)


def test_the_card_tells_command_licence_measurements_and_the_true_checksums() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in card and "python -m diffpref.pretraining.video --output" in card and "minutes" in card
    for told, value in read_json(FOLDER / "measured.json").items():
        assert f"| {told} | {value:.4g} |" in card
    weights = sorted(FOLDER.rglob("*.safetensors"))
    assert weights and re.findall(r"`([0-9a-f]{64})`", card) == [sha256(path) for path in weights]


def test_the_round_draws_as_was_measured_and_leaves_room_in_motion() -> None:
    assert _measured("shape and colour right") >= 0.70
    assert 0.30 <= _measured("direction and speed right") <= 0.70
    page = (Path(__file__).parents[2] / "docs" / "shapes.md").read_text(encoding="utf-8")
    right = 100 * _measured("all facts right")
    assert f"{right:.1f} % at guidance {_sampler().settings.guidance_scale:g}" in page


def test_the_oracle_was_trustworthy() -> None:
    told = read_json(FOLDER / "measured.json")
    renders, again = (next(v for k, v in told.items() if f"oracle accepts {what}" in k) for what in ("rend", "rec"))
    assert renders >= 0.98 and again >= 0.95


def test_the_network_is_small() -> None:
    from diffpref.models import load_family

    assert sum(p.numel() for p in load_family("unet3d", str(FOLDER)).network.parameters()) <= 3e6


def test_some_clips_are_right_and_drawn_again_they_are_the_same() -> None:
    shown = moving_captions("unseen")[:4]
    clips = [clip.frames for clip in _sampler()([str(caption) for caption in shown], list(range(4)))]
    again = _sampler()([str(shown[2])], [2])[0]
    assert isinstance(again, Clip) and np.array_equal(again.frames, clips[2]) and len(clips[2]) == NUM_FRAMES
    right = [num_motion_facts_right(clip, caption) for clip, caption in zip(clips, shown, strict=True)]
    assert sum(right) >= 0.7 * len(MOTION_FACTS) * 4 and len(MOTION_FACTS) in right


@pytest.mark.slow
def test_stock_diffusers_loads_it_without_diffpref(tmp_path: Path) -> None:
    words = [sys.executable, "-c", STOCK, str(FOLDER)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
