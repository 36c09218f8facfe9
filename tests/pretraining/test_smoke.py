"""Eight updates of every script that made the bundled models, from renders to cards, and a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from diffpref.core.assets import resolve
from diffpref.core.files import read_json
from diffpref.core.randomness import Random
from diffpref.pretraining import (
    bundle,
    bundle_sd3,
    bundle_video,
    clip,
    hps,
    pickscore,
    samples,
    sd3,
    text,
    unet,
    vae,
    video,
)
from diffpref.pretraining.loop import Loop, one_cycle
from diffpref.pretraining.moving_text import warm_up
from diffpref.sampling import SamplerSettings
from diffpref.shapes.motion import SPLITS, moving_captions

STEPS = 8


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every script once, in order."""
    work = tmp_path_factory.mktemp("pretraining")
    torch.set_num_threads(1)
    vae.main(work / "vae", steps=STEPS, num_scenes=20)
    text.main(work / "text", steps=STEPS)
    unet.main(work / "vae" / "model", work / "text" / "model", work / "unet", steps=STEPS, scenes_per_caption=1)
    # pictures of the bundled pipeline: those of a network after 8 updates have no right facts to compare
    for name, seed in (("samples", 1), ("hps_samples", 2)):
        samples.main(
            Path(resolve("bundled:shapes-sdxl")), work / name, per_caption=3, num_captions=10, seed=seed,
            num_inference_steps=6,
        )  # fmt: skip
    clip.main(work / "text" / "model", work / "clip", work / "samples", steps=STEPS)
    pickscore.main(work / "clip" / "model", work / "samples", work / "pickscore", steps=STEPS)
    hps.main(work / "text" / "model", work / "hps_samples", work / "hps", steps=STEPS)
    return work


@pytest.mark.slow
def test_every_script_runs_and_the_models_are_bundled_with_cards(trained: Path, tmp_path: Path) -> None:
    bundle.main(trained, tmp_path, num_inference_steps=2, limit=4)
    for name in ("sdxl", "clip", "pickscore", "hps"):
        card = (tmp_path / name / "README.md").read_text(encoding="utf-8")
        assert "python -m diffpref.pretraining." in card and "sha256" in card
        assert read_json(tmp_path / name / "measured.json")
    assert (tmp_path / "sdxl" / "model_index.json").is_file()


@pytest.mark.slow
def test_the_losses_fall(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_json(trained / "unet" / "checkpoint" / "counters.json")["step"] == STEPS
    text.main(trained / "text", steps=STEPS)  # a finished run is not run again
    assert "step" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["StableDiffusion3Pipeline", "TextToVideoSDPipeline"])
def test_flow_and_video_pipelines_come_out_whole_draw_and_are_bundled(kind: str, tmp_path: Path) -> None:
    import diffusers

    torch.set_num_threads(1)
    name, steps = ("sd3", 3) if kind == "StableDiffusion3Pipeline" else ("video", 10)  # two of single frames
    if name == "sd3":
        sd3.main(tmp_path / name, steps=steps, scenes_per_caption=1)
        bundle_sd3.main(tmp_path, tmp_path / "assets", num_inference_steps=2, limit=2)
    else:
        video.main(tmp_path / name, steps=steps, clips_per_caption=1, text_steps=5)
        bundle_video.main(tmp_path, tmp_path / "assets", num_inference_steps=2, per_caption=1, limit=2)
    absent = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3" else {}
    pipeline = getattr(diffusers, kind).from_pretrained(tmp_path / "assets" / name, **absent)
    size = {"height": 64, "width": 64} if name == "sd3" else {"height": 32, "width": 32, "num_frames": 8}
    drawn = pipeline("a red circle", num_inference_steps=2, output_type="np", **size)
    shown = drawn.images if name == "sd3" else drawn.frames
    assert shown.shape[-3] == shown.shape[-2] == size["height"] and bool((shown >= 0).all())
    assert read_json(tmp_path / name / "checkpoint" / "counters.json")["step"] == steps
    card = (tmp_path / "assets" / name / "README.md").read_text(encoding="utf-8")
    assert f"diffpref.pretraining.{name} --output" in card and f"--steps {steps}" in card
    measured = read_json(tmp_path / "assets" / name / "measured.json")
    assert all(0 <= share <= 1 for share in measured.values()) and len(measured) >= 15
    assert all(f"| {told} | {share:.4g} |" in card for told, share in measured.items())


def test_the_text_encoder_of_clips_tells_directions_apart(tmp_path: Path) -> None:
    sentences = [str(caption) for split in SPLITS for caption in moving_captions(split)]
    tokenizer = text.build_tokenizer(sentences, "<|endoftext|>")
    torch.manual_seed(0)
    encoder, readable = warm_up(tmp_path, tokenizer, Random(0), steps=60)
    assert readable >= 0.9
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    told = ["a red circle moving left slowly", "a red circle moving right slowly", "a blue circle moving left slowly"]
    ids = tokenizer(told, padding="max_length", max_length=16, return_tensors="pt").input_ids
    left, right, blue = encoder(ids).last_hidden_state
    assert (left - right).norm() > 0.3 * (left - blue).norm()


def test_a_search_finds_the_best_and_the_best_that_leaves_room() -> None:
    grid = [SamplerSettings(4, guidance) for guidance in (1.0, 2.0, 3.0)]
    search = bundle.Search("right", dict(zip(grid, (0.25, 0.5, 0.5), strict=True)))
    assert search.best() == search.best(0.5) == grid[1]
    assert search.best(0.4) == search.best(0.1) == grid[0]
    assert search.measured() == {f"right, ddim, 4 steps, guidance {g}": s for g, s in ((1, 0.25), (2, 0.5), (3, 0.5))}


def _run(folder: Path, steps: int, stop: int | None = None) -> nn.Linear:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    loop = Loop(folder, {"model": model}, steps=steps, learning_rate=1e-2, ema_decay=0.9, checkpoint_every=5)
    for step in loop:
        if step == stop:
            break
        generator = torch.Generator().manual_seed(step)
        loop.update(model(torch.randn(8, 3, generator=generator)).square().mean())
    return loop.averaged["model"]


def test_a_resumed_run_gives_the_same_bits(tmp_path: Path) -> None:
    whole = _run(tmp_path / "a", 20)
    _run(tmp_path / "b", 20, stop=13)  # the checkpoint is of step 10
    resumed = _run(tmp_path / "b", 20)
    assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)


def test_the_cycle_rises_and_falls() -> None:
    factors = [one_cycle(step, 100) for step in range(100)]
    assert max(factors) == 1.0 and factors[0] == 0.2 and factors[-1] < 0.01
    assert factors[5:] == sorted(factors[5:], reverse=True)
