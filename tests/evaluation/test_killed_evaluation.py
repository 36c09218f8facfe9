"""The real command on the bundled SDXL: killed in the middle it ends as if it never was, and it sees what is worse."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from diffpref.evaluation import Standings, make_table
from diffpref.models import load_family

BASE = "bundled:shapes-sdxl"


@pytest.fixture(scope="module")
def noised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled denoiser with noise of a quarter of each weight's own spread."""
    network = load_family("sdxl", BASE, parts=("network",)).network
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() > 1:
                parameter += 0.25 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    folder = tmp_path_factory.mktemp("noised") / "unet"
    network.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_results_and_says_that_noise_on_the_weights_is_worse(
    noised: Path, tmp_path: Path
) -> None:
    words = ["same=" + BASE, f"noised={noised}", "--base", BASE, "--family", "sdxl", "--num_inference_steps", "4"]
    words += ["--prompts", "shapes:unseen:40", "--guidance_scale", "1", "--batch_size", "8"]
    words += ["--rewards", "oracle", "hps=bundled:shapes-hps"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(output: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "diffpref", "evaluate", *words, "--output", output]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **quiet)

    for name, wanted in (("same", 12), ("noised", 20)):  # kill -9 amid two contenders' pictures
        killed = start("killed")
        while len(list((tmp_path / "killed" / "pictures" / name).glob("*.png"))) < wanted and killed.poll() is None:
            time.sleep(0.02)
        assert killed.poll() is None
        killed.kill()
        killed.wait()
        assert not (tmp_path / "killed" / "results.json").exists()
    assert start("killed").wait() == 0 and start("whole").wait() == 0
    for name in ("results.json", "report.md", "grid.png"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("killed", "whole"))
        assert one.replace(b"--output killed", b"") == other.replace(b"--output whole", b""), name

    found = Standings.load(tmp_path / "whole" / "results.json")
    table = make_table(found)
    for entry in table.of("same"):
        assert entry.win is not None and entry.wilson is not None
        assert (entry.win.rate, entry.win.low, entry.win.high) == (0.5, 0.5, 0.5)
        assert entry.wilson.low < 0.5 < entry.wilson.high
    for entry in table.of("noised"):
        assert entry.win is not None and entry.win.high < 0.5 and entry.win.sign_test_p < 0.05, entry.measure
    assert found.columns["same"].whole["prediction drift"] == 0.0
    assert found.columns["noised"].whole["prediction drift"] > 0.01
