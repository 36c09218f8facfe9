"""An evaluation of a tiny model of videos: facts of motion, clips that stay, and a report in which they move."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffpref.cli import main
from diffpref.core.errors import ConfigError
from diffpref.core.media import Clip
from diffpref.evaluation import Standings
from diffpref.evaluation.folder import read_kept
from diffpref.evaluation.measures import CLIP_PROBES, MOTION_PROBES
from diffpref.evaluation.measuring import check_kinds
from diffpref.models import load_family, registry
from diffpref.rewards import load
from diffpref.shapes.motion import moving_captions, render_clip
from diffpref.shapes.motion_oracle import MOTION_FACTS


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny UNet3D, and its denoiser with noise on the weights."""
    folder = tmp_path_factory.mktemp("models")
    registry.get("unet3d").tiny().pipeline().save_pretrained(folder / "base")
    network = load_family("unet3d", str(folder / "base"), parts=("network",)).network
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    network.save_pretrained(folder / "noised")
    return folder


def words(models: Path, output: Path, *more: str) -> list[str]:
    base = ["--base", str(models / "base"), "--family", "unet3d", "--output", str(output)]
    size = ["--resolution", "32", "--num_frames", "4", "--num_inference_steps", "1", "--batch_size", "3"]
    prompts = ["--prompts", "shapes_moving:unseen:3", "--guidance_scale", "1"]
    return ["evaluate", f"noised={models / 'noised'}", *base, *size, *prompts, *more]


@pytest.mark.slow
def test_models_of_videos_are_compared_and_shown(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judges = ["--rewards", "oracle", "motion", "flicker", "{frame_mean: {reward: jpeg, frames: 2}}"]
    assert main([*words(models, tmp_path / "out", *judges)]) == 0
    told = capsys.readouterr()
    assert "noised: 3 of 3 clips" in told.err and "of noised's clips" in told.out
    found = Standings.load(tmp_path / "out" / "results.json")
    noised = found.columns["noised"]
    assert set(noised.facts) == set(MOTION_FACTS) and set(noised.scores) == {"motion", "flicker", "frame_mean"}
    assert set(noised.probes) == {*CLIP_PROBES, *MOTION_PROBES} and noised.whole["prediction drift"] > 1e-4
    assert found.setting["sampler"]["num_frames"] == 4 and found.noun == "clips"

    prompt = found.prompts[1]
    clip = read_kept(tmp_path / "out", "noised", 1)
    assert isinstance(clip, Clip) and clip.frames.shape == (4, 32, 32, 3) and clip.fps == 8
    assert noised.scores["motion"][1] == load("motion").score([clip], [prompt]).item()
    assert noised.probes["steadiness"][1] == noised.scores["flicker"][1]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert len(re.findall(r'src="data:image/gif;base64,', page)) == page.count('class="strip"') >= 6
    assert "are measures of single pictures here and are not told of clips" in page
    with Image.open(tmp_path / "out" / "grid.gif") as moving, Image.open(tmp_path / "out" / "grid.png") as strips:
        assert moving.n_frames == 4 and strips.width > 4 * 88  # type: ignore[attr-defined]

    results = (tmp_path / "out" / "results.json").read_bytes()
    (tmp_path / "out" / "pictures" / "noised" / "00001.webp").write_bytes(b"RIFF no more")
    assert main([*words(models, tmp_path / "out", *judges), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_pairs"] == 3
    assert (tmp_path / "out" / "results.json").read_bytes() == results
    assert np.array_equal(read_kept(tmp_path / "out", "noised", 1).frames, clip.frames)
    assert main(["evaluate", "--again", str(tmp_path / "out")]) == 0
    assert "without pictures" not in capsys.readouterr().err


def test_rewards_of_pictures_are_refused_before_anything_is_drawn(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(models, tmp_path / "out", "--rewards", "jpeg")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "reward 'jpeg' scores pictures, and clips are drawn; score frames: {frame_mean: {reward: jpeg}}" in line
    assert not (tmp_path / "out" / "pictures").exists()
    with pytest.raises(ConfigError, match=r"scores clips, and pictures are drawn$"):
        check_kinds({"motion": load("motion")}, "image")
    check_kinds({"oracle": load("oracle")}, "image")
    check_kinds({"oracle": load("oracle")}, "video")


def test_probes_of_a_clip_tell_what_moves_and_what_flickers() -> None:
    caption = next(one for one in moving_captions("seen") if one.speed == "quickly")
    frames = render_clip(caption, np.random.default_rng(0))
    light = frames.copy()
    light[::2] = np.clip(light[::2].astype(int) + 12, 0, 255)

    def probed(frames: np.ndarray) -> dict[str, Any]:
        return {name: probe(Clip(frames, 8)) for name, probe in {**CLIP_PROBES, **MOTION_PROBES}.items()}

    moving, still, flickering = probed(frames), probed(np.repeat(frames[:1], 8, axis=0)), probed(light)
    assert moving["motion"] > still["motion"] == 0 and moving["steadiness"] < still["steadiness"] == 1
    assert moving["dynamic_degree"] == pytest.approx(13 / 7, rel=0.1) and still["dynamic_degree"] == 0
    assert flickering["steady_light"] < 0.97 < moving["steady_light"] == 1.0
    assert still["sharpness"] == pytest.approx(moving["sharpness"], rel=0.5)
