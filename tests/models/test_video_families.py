"""Families of videos: zero margins at the start, errors by frame, results for plain libraries, clear refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import MotionAdapter

from diffpref.core.contracts import Conditioning, RoleSpec, Rows
from diffpref.core.errors import ConfigError, ModelError, ShapeError
from diffpref.core.randomness import Random
from diffpref.likelihood import DenoisingLikelihood
from diffpref.models import load_family
from diffpref.models import registry as families
from diffpref.models.adapters import Adapter, registry
from diffpref.models.recompute import set_checkpointing
from diffpref.models.roles import NetworkRole, build_roles
from diffpref.models.videos import VideoFamily
from diffpref.objectives import dense_dpo

NAMES = [name for name in families if families.get(name).samples == "videos"]
RATIOS = ("chosen_log_ratio", "rejected_log_ratio", "chosen_segment_log_ratio", "rejected_segment_log_ratio")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=NAMES)
def family(request: Any) -> Any:
    return families.get(request.param).tiny()


def pairs(family: VideoFamily, size: int = 2) -> Rows:
    """Rows of pairs of clips, chosen, then rejected, with shared noise and timesteps."""
    generator, shape = torch.Generator().manual_seed(0), family.latent_shape(64)
    clean = torch.randn((2 * size, *shape), generator=generator)
    noise = torch.randn((size, *shape), generator=generator).repeat(2, 1, 1, 1, 1)
    timesteps = family.sample_timesteps(torch.tensor([0.02, 0.5, 0.999][:size], dtype=torch.float64)).repeat(2)
    told = family.encode_prompt([f"caption {i}" for i in range(size)], 64)
    if family.takes_opening:
        told = told.replace(family.encode_opening(torch.rand((size, 3, 64, 64), generator=generator) * 2 - 1, 64))
    inputs = {
        "noisy": family.add_noise(clean, noise, timesteps),
        "timesteps": timesteps,
        "target": family.target(clean, noise, timesteps),
    }
    groups = {"chosen": torch.arange(size), "rejected": torch.arange(size) + size}
    return Rows("denoising", inputs, Conditioning.concatenate([told, told]), groups)


def likelihood(family: VideoFamily) -> DenoisingLikelihood:
    return DenoisingLikelihood(family.schedule, unit_dims=family.unit_dims)


def ratios(family: VideoFamily, how: Adapter, grad: bool = False) -> dict[str, torch.Tensor]:
    roles, rows = build_roles({"reference": RoleSpec()}, family, family.network, how), pairs(family)
    outputs = {"policy": roles["policy"](rows, grad=grad), "reference": roles["reference"](rows)}
    return likelihood(family)(RATIOS, outputs, rows)


def move(groups: dict[str, list[torch.nn.Parameter]], scale: float = 0.05) -> None:
    """Move every trainable weight, as training would."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in (p for group in groups.values() for p in group):
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def ask(family: VideoFamily, network: Any) -> torch.Tensor:
    return NetworkRole(family, network)(pairs(family))["prediction"]


def segment_dpo(found: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss of DenseDPO where the first of two clips is better in one frame, worse in another."""
    first, second = found["chosen_segment_log_ratio"], found["rejected_segment_log_ratio"]
    labels = torch.tensor([[1.0, 0.0, -1.0]]).expand(len(first), -1)
    terms: Any = dense_dpo(
        chosen_segment_log_ratio=first, rejected_segment_log_ratio=second, segment_label=labels, beta=500.0
    )
    weights = torch.ones_like(terms.losses) if terms.weights is None else terms.weights
    return (weights * terms.losses).sum() / weights.sum()


@pytest.mark.parametrize("level", [False, True])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_at_the_start_every_margin_is_exactly_zero(family: VideoFamily, kind: str, level: bool) -> None:
    how: Adapter = registry.get(kind)()
    groups = how.install(family, Random(0))
    set_checkpointing(family, family.network, level)
    found = ratios(family, how, grad=True)
    assert all((value == 0).all() for value in found.values())
    loss = segment_dpo(found)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    loss.backward()
    assert sum(float(p.grad.abs().sum()) for group in groups.values() for p in group if p.grad is not None) > 0


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_recomputing_gives_the_same_gradients_and_less_is_kept(family: VideoFamily, kind: str) -> None:
    gradients, kept = [], []
    for level in (False, "every_second", True):
        fresh: Any = families.get(family.name).tiny()
        how: Adapter = registry.get(kind)()
        move(how.install(fresh, Random(0)))
        set_checkpointing(fresh, fresh.network, True)
        set_checkpointing(fresh, fresh.network, level)
        held: dict[int, int] = {}

        def pack(tensor: torch.Tensor, held: dict[int, int] = held) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        role = build_roles({}, fresh, fresh.network, how)["policy"]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            total = role(pairs(fresh), grad=True)["prediction"].square().mean()
        kept.append(sum(held.values()))
        total.backward()
        gradients.append({n: p.grad for n, p in fresh.network.named_parameters() if p.grad is not None})
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-7)
    assert kept[2] < kept[1] < kept[0]


def test_a_copy_of_a_recomputed_network_runs_its_own_weights(family: VideoFamily) -> None:
    from copy import deepcopy

    family.network.requires_grad_(True)
    set_checkpointing(family, family.network, True)
    other = deepcopy(family.network)
    before = ask(family, other)
    with torch.no_grad():
        for parameter in family.network.parameters():
            parameter.add_(0.1)
    assert torch.equal(ask(family, other), before) and not torch.equal(ask(family, family.network), before)


def test_frames_are_told_apart_and_average_to_the_whole(family: VideoFamily) -> None:
    how: Adapter = registry.get("lora")()
    move(how.install(family, Random(0)))
    found = ratios(family, how)
    for group in ("chosen", "rejected"):
        by_frame, whole = found[f"{group}_segment_log_ratio"], found[f"{group}_log_ratio"]
        assert by_frame.shape == (2, 3) and (by_frame != 0).all() and len(by_frame.unique()) == 6
        torch.testing.assert_close(by_frame.mean(dim=1), whole, rtol=1e-4, atol=1e-7)
    rows = pairs(family)
    prediction = ask(family, family.network)
    names = ["policy_chosen_segment_errors", "policy_rejected_errors", "chosen_segment_mask"]
    values = likelihood(family)(names, {"policy": {"prediction": prediction}}, rows)
    errors = torch.stack(
        [(prediction[:2, :, f] - rows.inputs["target"][:2, :, f]).square().mean((1, 2, 3)) for f in range(3)], dim=1
    )
    torch.testing.assert_close(values["policy_chosen_segment_errors"], errors)
    assert torch.equal(values["chosen_segment_mask"], torch.ones(2, 3))


def test_a_frame_changes_its_own_segment_alone(family: VideoFamily) -> None:
    rows, names = pairs(family), ["policy_chosen_segment_logps"]
    outputs = {"policy": {"prediction": ask(family, family.network)}}
    base = likelihood(family)(names, outputs, rows)[names[0]]
    target = rows.inputs["target"].clone()
    target[1, :, 2] += 1
    changed = replace(rows, inputs={**rows.inputs, "target": target})
    other = likelihood(family)(names, outputs, changed)[names[0]]
    assert torch.equal(base != other, torch.tensor([[False, False, False], [False, False, True]]))


def test_plain_libraries_reproduce_a_trained_lora(family: VideoFamily, tmp_path: Path) -> None:
    family.pipeline().save_pretrained(tmp_path / "base")
    how: Adapter = registry.get("lora")(rank=4, alpha=6.5)
    move(how.install(family, Random(0)))
    how.save(family, family.network, tmp_path / "lora")
    ours = ask(family, family.network)
    base = load_family(family.name, str(tmp_path / "base"))
    assert (ask(family, base.network) - ours).abs().max() > 1e-3

    told: dict[str, Any] = {}
    code = family.usage(f'"{tmp_path / "base"}"', "lora").replace('"lora"', f'"{tmp_path / "lora"}"')
    exec(code, told)  # what the model card tells
    torch.testing.assert_close(ask(family, told["pipe"].unet.eval()), ours, rtol=0, atol=2e-6)  # merging rounds

    again: Any = load_family(family.name, str(tmp_path / "base"))
    how = registry.get("lora")(rank=4, start=str(tmp_path / "lora"))
    how.install(again, Random(0))
    assert torch.equal(ask(family, again.network), ours)

    base.apply(str(tmp_path / "lora"), lora=True)
    torch.testing.assert_close(ask(family, base.network), ours, rtol=0, atol=1e-6)
    base.save_whole(tmp_path / "whole", torch.float32, lora=True)
    whole = load_family(family.name, str(tmp_path / "whole"), parts=("network",))
    torch.testing.assert_close(ask(family, whole.network), ours, rtol=0, atol=1e-5)


def test_plain_diffusers_reproduces_a_fully_trained_network(family: VideoFamily, tmp_path: Path) -> None:
    family.pipeline().save_pretrained(tmp_path / "base")
    how: Adapter = registry.get("full")()
    move(how.install(family, Random(0)), 0.01)
    how.save(family, family.network, tmp_path / "network")
    told: dict[str, Any] = {}
    code = family.usage(f'"{tmp_path / "base"}"', "network").replace('"network"', f'"{tmp_path / "network"}"')
    exec(code, told)
    assert torch.equal(ask(family, told["pipe"].unet.eval()), ask(family, family.network))
    base = load_family(family.name, str(tmp_path / "base"), parts=("network",))
    base.apply(str(tmp_path / "network"), lora=False)
    assert torch.equal(ask(family, base.network), ask(family, family.network))


def test_pictures_and_too_many_frames_are_refused_in_one_line(family: VideoFamily) -> None:
    told = family.encode_prompt(["a"], 64)
    picture = {"noisy": torch.zeros(1, 4, 8, 8), "timesteps": torch.tensor([1])}
    calls: list[Callable[[], Any]] = [
        lambda: family.encode_media(torch.zeros(2, 3, 64, 64)),
        lambda: family.decode_media(torch.zeros(2, 4, 8, 8)),
        lambda: family.forward(family.network, picture, told),
    ]
    for call in calls:
        with pytest.raises(ShapeError, match=f"'{family.name}' .*clips") as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"takes clips of .*, got 0"):
        family.latent_shape(64, 0)
    if family.max_frames is None:
        assert family.latent_shape(64, 40) == (4, 40, 8, 8)
        return
    long = {"noisy": torch.zeros(1, 4, 9, 8, 8), "timesteps": torch.tensor([1])}
    for call in (
        lambda: family.encode_media(torch.zeros(1, 9, 3, 64, 64)),
        lambda: family.latent_shape(64, 9),
        lambda: family.forward(family.network, long, told),
    ):
        with pytest.raises(ConfigError, match=f"'{family.name}' from tiny takes clips of 1 to 8 frames, got 9"):
            call()


def test_a_clip_is_no_picture() -> None:
    with pytest.raises(ShapeError, match=r"'sd' encodes images \(N, 3, H, W\), got \(1, 3, 3, 64, 64\); videos need a"):
        families.get("sd").tiny().encode_media(torch.zeros(1, 3, 3, 64, 64))  # type: ignore[attr-defined]


def test_a_loaded_checkpoint_makes_sixteen_frames_or_what_its_motion_modules_allow(
    family: VideoFamily, tmp_path: Path
) -> None:
    family.pipeline().save_pretrained(tmp_path)
    loaded = load_family(family.name, str(tmp_path), parts=("network", "vae"))
    count = family.max_frames or family.config.get("num_frames", 16)
    assert loaded.native_frames() == count and loaded.latent_shape(64) == (4, count, 8, 8)


@pytest.mark.parametrize(("image_name", "name"), [("sd", "animatediff"), ("sdxl", "animatediff_sdxl")])
def test_an_image_model_becomes_animatediff_with_a_motion_adapter(image_name: str, name: str, tmp_path: Path) -> None:
    kind: Any = families.get(name)
    pipeline_class: Any = kind.pipeline_class
    image: Any = families.get(image_name).tiny()
    image.pipeline().save_pretrained(tmp_path / "image")
    with pytest.raises(ModelError, match=rf"'{name}' does not fit .* {pipeline_class.__name__}.from_pre") as caught:
        load_family(name, str(tmp_path / "image"))
    assert "\n" not in str(caught.value)
    adapter = MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=8,
        use_motion_mid_block=False,
    )
    stock = pipeline_class.from_pretrained(tmp_path / "image", motion_adapter=adapter)
    stock.save_pretrained(tmp_path / "video")
    family = load_family(name, str(tmp_path / "video"))
    found = ask(family, family.network)
    again = pipeline_class.from_pretrained(tmp_path / "video")
    assert torch.equal(ask(family, again.unet), found) and found.shape == (4, 4, 8, 8, 8)
    with pytest.raises(ModelError, match="whose denoiser is a UNetMotionModel, not a UNet3DConditionModel"):
        load_family("unet3d", str(tmp_path / "video"))
    other = "animatediff" if image_name == "sdxl" else "animatediff_sdxl"
    what = "an SDXL" if image_name == "sdxl" else "a Stable Diffusion 1 or 2"
    with pytest.raises(ModelError, match=f"'{other}' does not fit .*, which holds {what} denoiser"):
        load_family(other, str(tmp_path / "video"))


@pytest.mark.parametrize(("causal", "fits", "latent", "near"), [(True, 9, 3, "5 and 9"), (False, 8, 2, "4 and 8")])
def test_a_vae_that_packs_frames_takes_the_numbers_that_fit(
    monkeypatch: pytest.MonkeyPatch, causal: bool, fits: int, latent: int, near: str
) -> None:
    family: Any = families.get("unet3d").tiny()
    monkeypatch.setattr(type(family), "temporal_factor", 4)
    monkeypatch.setattr(type(family), "causal", causal)
    family.check_frames(fits)
    assert family.latent_frames(fits) == latent and family.latent_shape(64, fits) == (4, latent, 8, 8)
    form = "4 n \\+ 1" if causal else "4 n"
    with pytest.raises(ConfigError, match=f"VAE of 'unet3d' takes clips of {form} frames, got 7; near are {near}$"):
        family.check_frames(7)
    assert family._checked(torch.zeros(1, 4, latent, 8, 8)).shape[2] == latent
