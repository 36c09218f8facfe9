"""What training leaves behind: plain diffusers, without diffpref, gives the trained denoiser's answers and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file

from diffpref.core.contracts import Rows
from diffpref.core.randomness import Random
from diffpref.models import load_family
from diffpref.models import registry as families
from diffpref.models.adapters import Adapter, registry
from diffpref.models.family import DenoiserFamily
from diffpref.models.roles import NetworkRole

MAKERS: dict[str, Callable[[], DenoiserFamily]] = {name: families.get(name).tiny for name in ("sd", "sdxl")}
MAKERS["sd, v_prediction"] = lambda: families.get("sd").tiny(prediction_type="v_prediction")  # type: ignore[call-arg]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=MAKERS)
def family(request: Any) -> DenoiserFamily:
    return MAKERS[request.param]()


def adapter(kind: str, **options: Any) -> Adapter:
    return registry.get(kind)(**options)


def trained(family: DenoiserFamily, how: Adapter, scale: float = 0.05) -> None:
    """Install an adapter and move every trainable weight, as training would."""
    groups = how.install(family, Random(0))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in (p for group in groups.values() for p in group):
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def questions(family: DenoiserFamily) -> Rows:
    noisy = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    inputs = {"noisy": noisy, "timesteps": torch.tensor([999, 20, 500])}
    return Rows("denoising", inputs, family.encode_prompt(["a", "", "b c"], 64), {})


@pytest.mark.parametrize("alpha", [None, 1.0, 6.5])
def test_plain_diffusers_reproduces_a_trained_lora(family: DenoiserFamily, alpha: float | None, tmp_path: Path) -> None:
    family.pipeline().save_pretrained(tmp_path / "base")
    how = adapter("lora", rank=4, alpha=alpha)
    trained(family, how)
    how.save(family, family.network, tmp_path / "lora")
    rows = questions(family)
    ours = NetworkRole(family, family.network)(rows)["prediction"]
    base = load_family(family.name, str(tmp_path / "base"), parts=("network",))
    assert (NetworkRole(base, base.network)(rows)["prediction"] - ours).abs().max() > 1e-3
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "base")
    pipeline.load_lora_weights(tmp_path / "lora")
    theirs = NetworkRole(family, pipeline.unet)(rows)["prediction"]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)
    picture = {"prompt": "a", "height": 64, "width": 64, "num_inference_steps": 2, "output_type": "np"}
    drawn = []
    for pipe in (pipeline, family.pipeline()):
        pipe.set_progress_bar_config(disable=True)
        drawn.append(torch.from_numpy(pipe(**picture, generator=torch.Generator().manual_seed(0)).images))
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=1e-6)


def test_the_lora_file_is_peft_named_float32_and_says_rank_and_alpha(family: DenoiserFamily, tmp_path: Path) -> None:
    how = adapter("lora", rank=4, alpha=6.5)
    trained(family, how)
    how.save(family, family.network, tmp_path)
    (file,) = tmp_path.iterdir()
    weights = load_file(file)
    assert all(name.startswith("unet.") and "lora" in name for name in weights)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    with safe_open(file, framework="pt") as reader:
        metadata = json.loads(reader.metadata()["lora_adapter_metadata"])
    assert (metadata["unet.r"], metadata["unet.lora_alpha"]) == (4, 6.5)
    assert metadata["unet.target_modules"] == sorted(family.lora_targets)


def test_a_fully_trained_denoiser_loads_with_from_pretrained(family: DenoiserFamily, tmp_path: Path) -> None:
    how = adapter("full")
    trained(family, how, 0.01)
    how.save(family, family.network, tmp_path)
    loaded = UNet2DConditionModel.from_pretrained(tmp_path).eval()
    rows = questions(family)
    ours, theirs = (NetworkRole(family, net)(rows)["prediction"] for net in (family.network, loaded))
    assert torch.equal(ours, theirs)
    assert [p.suffix for p in sorted(tmp_path.iterdir())] == [".json", ".safetensors"]


def test_equal_loras_are_equal_files(tmp_path: Path) -> None:
    family, how = MAKERS["sd"](), adapter("lora")
    trained(family, how)
    files = set()
    for i in range(8):
        how.save(family, family.network, tmp_path / str(i))
        (file,) = (tmp_path / str(i)).iterdir()
        files.add(file.read_bytes())
    assert len(files) == 1
    (content,) = files
    assert int.from_bytes(content[:8], "little") % 8 == 0
