"""Models on a flow whose denoiser is a transformer are compared as those with a UNet are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffpref.cli import main
from diffpref.core.errors import ModelError
from diffpref.evaluation import Standings
from diffpref.evaluation.contenders import Contender, parse_contenders
from diffpref.evaluation.placing import check_contenders
from diffpref.models import load_family, registry


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SD3, the same again, and its denoiser with noise on the weights."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("base", "twin"):
        registry.get("sd3").tiny().pipeline().save_pretrained(folder / name)
    network = load_family("sd3", str(folder / "base"), parts=("network",)).network
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    network.save_pretrained(folder / "noised")
    return folder


@pytest.mark.slow
def test_a_denoiser_and_a_whole_model_are_compared_with_their_base(models: Path, tmp_path: Path) -> None:
    words = [
        "evaluate",
        str(models / "twin"),
        str(models / "noised"),
        "--base",
        str(models / "base"),
        "--family",
        "sd3",
    ]
    words += ["--prompts", "shapes:unseen:3", "--rewards", "oracle", "jpeg", "--output", str(tmp_path / "out")]
    assert main([*words, "--num_inference_steps", "2", "--guidance_scale", "2", "--batch_size", "3"]) == 0
    found = Standings.load(tmp_path / "out" / "results.json")
    base, twin, noised = (found.columns[name] for name in ("base", "twin", "noised"))
    assert twin.scores == base.scores and twin.whole["prediction drift"] == 0.0
    assert noised.scores != base.scores and noised.whole["prediction drift"] > 1e-4
    assert found.setting["base"]["family"] == "sd3" and found.noun == "pictures"
    assert (tmp_path / "out" / "grid.png").is_file() and not (tmp_path / "out" / "grid.gif").exists()


def test_what_is_no_transformer_of_that_shape_is_refused_before_anything_is_drawn(
    models: Path, tiny_sdxl: Path
) -> None:
    kinds = {one.name: one.kind for one in parse_contenders([str(models / "twin"), str(models / "noised")])}
    assert kinds == {"twin": "pipeline", "noised": "network"}
    base = str(models / "base")
    check_contenders([Contender("noised", "network", str(models / "noised"))], base, part="transformer")
    for kind, path in (("network", tiny_sdxl / "unet"), ("pipeline", tiny_sdxl)):
        with pytest.raises(ModelError, match=r"^other: ") as error:
            check_contenders([Contender("other", kind, str(path))], base, part="transformer")  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
