"""A LoRA in kohya's form gives the trained denoiser's answers, whatever its alpha; the merged model, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import DiffusionPipeline
from diffusers.utils import convert_state_dict_to_kohya
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffpref.cli import main
from diffpref.core.contracts import Rows
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.models import registry as families
from diffpref.models.adapters import Held
from diffpref.models.adapters import registry as adapters
from diffpref.models.kohya import kohya_metadata, read_lora, to_kohya
from diffpref.models.roles import NetworkRole

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
MIXED = ["to_q", "to_v", "proj_in", "conv1", "time_emb_proj"]


def questions(family: Any) -> Rows:
    noisy = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    inputs = {"noisy": noisy, "timesteps": torch.tensor([999, 20, 500])}
    return Rows("denoising", inputs, family.encode_prompt(["a", "", "b c"], 64), {})


@pytest.fixture(params=[("sd", None), ("sd", MIXED), ("sdxl", None), ("sdxl", MIXED)], ids=lambda p: f"{p[0]}-{p[1]}")
def run(request: Any, tmp_path: Path) -> Any:
    """A finished run of a family with a LoRA of rank 4 and alpha 10 that was moved away from its start."""
    name, targets = request.param
    return finished_run(tmp_path, name, targets)


def finished_run(tmp_path: Path, name: str, targets: list[str] | None, dora: bool = False) -> Any:
    family = families.get(name).tiny()
    family.pipeline().save_pretrained(tmp_path / "base")
    how = adapters.get("lora")(rank=4, alpha=10.0, targets=targets, dora=dora)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in (p for group in how.install(family, Random(0)).values() for p in group):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    (tmp_path / "run" / "lora").mkdir(parents=True)
    how.save(family, family.network, tmp_path / "run" / "lora")
    recipe = {
        "output": str(tmp_path / "run"),
        "model": {"family": name, "path": str(tmp_path / "base")},
        "data": {"source": "none"},
        "method": "diffusion_dpo",
    }
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(recipe))
    return family, tmp_path


def answers(family: Any, network: Any) -> torch.Tensor:
    return NetworkRole(family, network)(questions(family))["prediction"]


def test_row_39_exported_and_loaded_by_plain_diffusers_it_is_the_trained_model(run: Any) -> None:
    family, folder = run
    file, merged = folder / "out" / "lora.safetensors", folder / "merged"
    assert main(["export", str(folder / "run"), "--format", "kohya", "--output", str(file)]) == 0
    assert main(["export", str(folder / "run"), "--format", "merged", "--output", str(merged)]) == 0
    plain = folder / "plain.safetensors"
    assert main(["export", str(folder / "run"), "--format", "diffusers", "--output", str(plain)]) == 0
    expected = answers(family, family.network)
    base = DiffusionPipeline.from_pretrained(folder / "base")
    assert (answers(family, base.unet) - expected).abs().max() > 1e-2
    for exported in (file, plain):
        pipeline = DiffusionPipeline.from_pretrained(folder / "base")
        pipeline.load_lora_weights(exported.parent, weight_name=exported.name)
        torch.testing.assert_close(answers(family, pipeline.unet), expected, rtol=0, atol=1e-6)
    whole = DiffusionPipeline.from_pretrained(merged)
    torch.testing.assert_close(answers(family, whole.unet), expected, rtol=1e-5, atol=1e-6)
    assert not [name for name in whole.unet.state_dict() if "lora" in name]
    assert {path.suffix for path in merged.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".txt"}


@pytest.mark.parametrize("targets", [None, MIXED], ids=str)
def test_row_39_a_dora_is_the_trained_model_in_diffusers_and_merged_and_refused_where_it_would_be_lost(
    tmp_path: Path, targets: list[str] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    family, folder = finished_run(tmp_path, "sdxl", targets, dora=True)
    assert any("magnitude" in name for name in load_file(folder / "run" / "lora" / "pytorch_lora_weights.safetensors"))
    expected, run, merged = answers(family, family.network), str(folder / "run"), folder / "merged"
    pipeline = DiffusionPipeline.from_pretrained(folder / "base")
    pipeline.load_lora_weights(folder / "run" / "lora")
    torch.testing.assert_close(answers(family, pipeline.unet), expected, rtol=0, atol=1e-6)
    assert main(["export", run, "--format", "merged", "--output", str(merged)]) == 0
    whole = DiffusionPipeline.from_pretrained(merged)
    torch.testing.assert_close(answers(family, whole.unet), expected, rtol=1e-5, atol=2e-6)
    assert main(["export", run, "--format", "kohya", "--output", str(folder / "x.safetensors")]) == 2
    assert "diffusers drops DoRA's scales" in capsys.readouterr().err


def test_a_dora_starts_at_the_base_exactly_and_its_whole_state_comes_back(tmp_path: Path) -> None:
    family = families.get("sdxl").tiny()
    before = answers(family, family.network)
    how = adapters.get("lora")(rank=4, alpha=10.0, dora=True)
    how.install(family, Random(0))
    assert torch.equal(answers(family, family.network), before)
    with torch.no_grad():
        for parameter in how.parameters(Held(family.network)):
            parameter.mul_(1.1).add_(0.01)
    moved, state = answers(family, family.network), {k: t.clone() for k, t in how.state(family.network).items()}
    other = families.get("sdxl").tiny()
    how.install(other, Random(1))
    how.load_state(other.network, state)
    assert torch.equal(answers(other, other.network), moved) and not torch.equal(moved, before)


def test_row_39_its_keys_are_those_of_diffusers_converter_but_for_the_true_alpha(run: Any) -> None:
    weights, settings = read_lora(run[1] / "run" / "lora")
    ours = to_kohya(weights, settings)
    theirs = convert_state_dict_to_kohya({f"unet.{name}": tensor for name, tensor in weights.items()})
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        if name.endswith(".alpha"):
            assert (tensor.item(), theirs[name].item()) == (10.0, 4)
        else:
            assert torch.equal(tensor, theirs[name])


def test_the_file_says_what_it_is_and_equal_runs_give_equal_files(run: Any) -> None:
    family, folder = run
    files = [folder / "a" / "x.safetensors", folder / "b" / "x.safetensors"]
    for file in files:
        assert main(["export", str(folder / "run"), "--format", "kohya", "--output", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    with safe_open(files[0], framework="pt") as reader:
        told = reader.metadata()
    assert (told["ss_network_dim"], told["ss_network_alpha"], told["ss_network_module"]) == ("4", "10", "networks.lora")
    assert told["ss_base_model_version"] == {"sd": "sd_v1", "sdxl": "sdxl_base_v1-0"}[family.name]
    assert told["modelspec.architecture"].endswith("/lora") and told["modelspec.title"] == "x"
    half = folder / "half.safetensors"
    assert main(["export", str(folder / "run"), "--format", "kohya", "--output", str(half), "--precision", "fp16"]) == 0
    dtypes = {name.rpartition(".")[2]: tensor.dtype for name, tensor in load_file(half).items()}
    assert dtypes == {"weight": torch.float16, "alpha": torch.float32}


@pytest.mark.parametrize(
    ("family", "prediction", "width", "expected"),
    [
        ("sd", "epsilon", 768, ("sd_v1", "stable-diffusion-v1/lora", "False", "512x512")),
        ("sd", "epsilon", 1024, ("sd_v2", "stable-diffusion-v2-512/lora", "True", "512x512")),
        ("sd", "v_prediction", 1024, ("sd_v2_v", "stable-diffusion-v2-768-v/lora", "True", "768x768")),
        ("sdxl", "epsilon", 2048, ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "False", "1024x1024")),
    ],
)
def test_each_base_is_called_as_sd_scripts_call_it(
    family: str, prediction: str, width: int, expected: tuple[str, ...]
) -> None:
    told = kohya_metadata(family, prediction, width, {"r": 8, "lora_alpha": 8})
    names = ("ss_base_model_version", "modelspec.architecture", "ss_v2", "modelspec.resolution")
    assert tuple(told[name] for name in names) == expected


def test_patterns_and_rank_stabilised_scales_keep_their_meaning() -> None:
    weights = {f"a.to_{x}.lora_{k}.weight": torch.ones(4, 4) for x in "qv" for k in "AB"}
    settings = {"lora_alpha": 8, "r": 4, "alpha_pattern": {"to_v": 2}, "use_rslora": True}
    alphas = {name: tensor.item() for name, tensor in to_kohya(weights, settings).items() if name.endswith("alpha")}
    assert alphas == {"lora_unet_a_to_q.alpha": 16.0, "lora_unet_a_to_v.alpha": 4.0}  # scale * rank, scale = alpha / 2
    with pytest.raises(ConfigError, match=r"plain LoRA only, got the weight 'a\.lora_magnitude_vector'"):
        to_kohya({"a.lora_magnitude_vector": torch.ones(4)}, settings)
    with pytest.raises(ConfigError, match="families sd and sdxl, not for 'sd3'"):
        kohya_metadata("sd3", "flow", 1, settings)


def test_the_average_is_exported_where_there_is_one(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    family, folder = run
    words = (str(folder / "run"), "--ema", "--format", "kohya", "--output", str(folder / "ema.safetensors"))
    assert "has no averaged result: neither lora_ema/ nor model_ema/ is there" in complaint(capsys, *words)
    with torch.no_grad():
        for parameter in (p for name, p in family.network.named_parameters() if "lora" in name):
            parameter.mul_(0.5)
    (folder / "run" / "lora_ema").mkdir()
    adapters.get("lora")(rank=4, alpha=10.0).save(family, family.network, folder / "run" / "lora_ema")
    assert main(["export", *words]) == 0
    assert main(["export", *words[:2], "--format", "merged", "--output", str(folder / "merged")]) == 0
    expected = answers(family, family.network)
    pipeline = DiffusionPipeline.from_pretrained(folder / "base")
    pipeline.load_lora_weights(folder, weight_name="ema.safetensors")
    torch.testing.assert_close(answers(family, pipeline.unet), expected, rtol=0, atol=1e-6)
    whole = DiffusionPipeline.from_pretrained(folder / "merged")
    torch.testing.assert_close(answers(family, whole.unet), expected, rtol=1e-5, atol=1e-6)


def test_a_run_of_all_weights_becomes_a_whole_pipeline_and_no_lora(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = families.get("sd").tiny()
    family.pipeline().save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for parameter in family.network.parameters():
            parameter.mul_(1.05)
    adapters.get("full")().save(family, family.network, tmp_path / "run" / "model")
    recipe = {
        "output": str(tmp_path / "run"),
        "model": {"family": "sd", "path": str(tmp_path / "base"), "precision": "bf16"},
        "adapter": {"kind": "full"},
        "data": {"source": "none"},
        "method": "diffusion_dpo",
    }
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(recipe))
    words = (str(tmp_path / "run"), "--output", str(tmp_path / "out"), "--format")
    assert "has trained all weights; use merged" in complaint(capsys, *words, "kohya")
    assert main(["export", *words, "merged"]) == 0
    whole = DiffusionPipeline.from_pretrained(tmp_path / "out")
    assert torch.equal(answers(family, whole.unet), answers(family, family.network))  # float32, though trained in bf16


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["export", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_exported_is_said_in_a_line(
    recipe_keys: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, new = tmp_path / "run", str(tmp_path / "new")
    assert "is not a run: no such folder" in complaint(capsys, str(run), "--format", "kohya", "--output", new)
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(recipe_keys()))
    assert "has no result yet" in complaint(capsys, str(run), "--format", "kohya", "--output", new)
    (run / "model").mkdir()
    assert "has trained all weights; use merged" in complaint(capsys, str(run), "--format", "kohya", "--output", new)
    (run / "lora").mkdir()
    save_file({"unet.a.lora_A.weight": torch.ones(1)}, run / "lora" / "pytorch_lora_weights.safetensors")
    assert "its scale is not known" in complaint(capsys, str(run), "--format", "kohya", "--output", new)
    (run / "lora" / "pytorch_lora_weights.safetensors").write_bytes(b"x")
    assert "not a readable LoRA" in complaint(capsys, str(run), "--format", "diffusers", "--output", new)
    assert "exists already" in complaint(capsys, str(run), "--format", "kohya", "--output", str(run))
    assert not Path(new).exists()
