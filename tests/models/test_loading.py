"""What cannot be loaded safely is refused, in one line that says what is wrong and what to do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffpref.core.errors import ConfigError, ModelError
from diffpref.models import load_family, registry

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("sdxl")
    registry.get("sdxl").tiny().pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def refused(path: object, message: str, family: str = "sdxl", **options: Any) -> None:
    with pytest.raises(ModelError, match=message) as error:
        load_family(family, str(path), **options)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def pickled(folder: Path) -> None:
    """Replace the denoiser's safetensors by a pickle of the same weights."""
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), folder / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()


def test_an_unknown_family_is_answered_with_the_closest_name() -> None:
    with pytest.raises(ConfigError, match="unknown family 'sdlx'; did you mean 'sdxl'"):
        load_family("sdlx", "anywhere")


def test_a_path_that_does_not_exist() -> None:
    refused("no/such/model", r"^model\.path: no/such/model is neither a folder nor a hub id that can be reached")


def test_a_folder_that_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "cat.png").touch()
    refused(tmp_path, r"has no model_index\.json \(it holds cat\.png\); expected a diffusers pipeline folder")


@pytest.mark.parametrize("part", ["scheduler", "unet", "vae", "text_encoder_2"])
def test_a_folder_without_a_part(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    refused(folder, f"has no subfolder '{part}'")


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_a_missing_tokenizer_is_not_replaced_by_an_empty_one(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    refused(folder, rf"has a '{part}' of 2 words for 190 embeddings; are its files there\?")


def test_a_lora_folder_is_no_model(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "pytorch_lora_weights.safetensors")
    refused(tmp_path, r"it holds pytorch_lora_weights\.safetensors")


def test_row_28_pickled_weights_are_not_opened_unless_allowed(folder: Path) -> None:
    pickled(folder)
    refused(folder, r"holds only pickled weights in 'unet'; set model\.allow_pickle to load them, or convert them")
    assert load_family("sdxl", str(folder), allow_pickle=True).network is not None


def test_row_28_a_pickle_that_runs_code_is_never_executed(folder: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    pickled(folder)
    torch.save({"conv_in.weight": Bomb()}, folder / "unet" / "diffusion_pytorch_model.bin")
    refused(folder, "only pickled weights")
    refused(folder, "model.path", allow_pickle=True)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("text_encoder/config.json", "auto_map", {"AutoModel": "own_code.Model"}),
        ("unet/config.json", "auto_map", {"AutoModel": "own_code.Model"}),
        ("model_index.json", "unet", ["own_code", "Model"]),
        ("model_index.json", "_class_name", ["own_code", "Pipeline"]),
        ("model_index.json", "custom_pipelines", {"own_code": "Pipeline"}),
    ],
)
def test_row_28_a_repository_with_code_is_refused_and_its_code_never_runs(
    folder: Path, tmp_path: Path, file: str, key: str, value: object
) -> None:
    code = f"from pathlib import Path\nPath({str(tmp_path / 'executed')!r}).touch()\n"
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        (place / "own_code.py").write_text(code)
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    refused(folder, f"names code of its own \\('{key}'\\), which is never run and no setting allows")
    refused(folder, "names code of its own", allow_pickle=True)
    assert not (tmp_path / "executed").exists()


def test_damaged_weights(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(folder, r"holds no loadable 'unet' \(")
    weights = folder / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(folder, r"holds no loadable 'text_encoder' \(", parts=("text",))


@pytest.mark.parametrize(("part", "file"), [("unet", "diffusion_pytorch_model"), ("text_encoder_2", "model")])
def test_missing_weights_are_not_filled_with_random_numbers(folder: Path, part: str, file: str) -> None:
    path = folder / part / f"{file}.safetensors"
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path, metadata={"format": "pt"})
    refused(folder, rf"lacks 1 weights of '{part}', the first is ")


def test_weights_of_another_size(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cross_attention_dim": 48}))
    refused(folder, "holds no loadable 'unet'")


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_settings_that_are_no_json_object(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    refused(folder, rf"{re.escape(name)} (is not readable JSON|must hold an object of settings, got list)")


def test_a_model_of_another_family(saved: Path, tmp_path: Path) -> None:
    refused(saved, "'sd' does not fit .* which holds an SDXL denoiser", family="sd")
    registry.get("sd").tiny().pipeline().save_pretrained(tmp_path)
    refused(tmp_path, "'sdxl' does not fit .* which holds a Stable Diffusion 1 or 2 denoiser")


def test_an_unknown_scheduler_and_a_flow_schedule(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "_class_name": "AutoencoderKL"}))
    family = load_family("sdxl", str(folder))
    with pytest.raises(ModelError, match="names the scheduler 'AutoencoderKL', which diffusers does not have"):
        family.scheduler()
    path.write_text(json.dumps({**config, "_class_name": "FlowMatchEulerDiscreteScheduler"}))
    with pytest.raises(ConfigError, match="flow-matching scheduler"):
        load_family("sdxl", str(folder))


def test_a_bundled_model_that_is_not_there() -> None:
    refused("bundled:shapes-none", "unknown bundled model 'shapes-none'")


def test_a_variant_that_is_not_there(saved: Path) -> None:
    refused(saved, "holds no loadable 'unet'", variant="fp16", parts=("network",))
