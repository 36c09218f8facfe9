"""Adapters and roles: policy and reference start bit-equal, gradients stay where they belong, diffusers reads it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from diffpref.core.contracts import Conditioning, RoleSpec, Rows
from diffpref.core.errors import CheckpointError, ConfigError
from diffpref.core.randomness import Random
from diffpref.likelihood import DenoisingLikelihood
from diffpref.models import load_family
from diffpref.models import registry as families
from diffpref.models.adapters import Adapter, registry
from diffpref.models.family import DenoiserFamily
from diffpref.models.recompute import set_checkpointing
from diffpref.models.roles import NetworkRole, build_roles
from diffpref.objectives import compose
from diffpref.objectives.compose import reduce_sums

MAKERS: dict[str, Callable[[], DenoiserFamily]] = {name: families.get(name).tiny for name in ("sd", "sdxl")}
MAKERS["sd, v_prediction"] = lambda: families.get("sd").tiny(prediction_type="v_prediction")  # type: ignore[call-arg]
RATIOS = ("chosen_log_ratio", "rejected_log_ratio")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=MAKERS)
def family(request: Any) -> DenoiserFamily:
    return MAKERS[request.param]()


def adapter(kind: str, **options: Any) -> Adapter:
    return registry.get(kind)(**options)


def pairs(family: DenoiserFamily, size: int = 3) -> Rows:
    """Rows of ``size`` pairs: chosen, then rejected, with shared noise and timesteps."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn((2 * size, 4, 8, 8), generator=generator)
    noise = torch.randn((size, 4, 8, 8), generator=generator).repeat(2, 1, 1, 1)
    timesteps = torch.tensor([999, 20, 500, 3][:size]).repeat(2)
    told = family.encode_prompt([f"caption {i}" for i in range(size)], 64)
    return Rows(
        "denoising",
        {
            "noisy": family.add_noise(clean, noise, timesteps),
            "timesteps": timesteps,
            "target": family.target(clean, noise, timesteps),
        },
        Conditioning.concatenate([told, told]),
        {"chosen": torch.arange(size), "rejected": torch.arange(size) + size},
    )


def log_ratios(family: DenoiserFamily, roles: Any, rows: Rows, grad: bool = False) -> dict[str, torch.Tensor]:
    outputs = {"policy": roles["policy"](rows, grad=grad), "reference": roles["reference"](rows)}
    return DenoisingLikelihood(family.schedule)(RATIOS, outputs, rows)


def loss(ratios: dict[str, torch.Tensor], beta: float = 5000.0) -> torch.Tensor:
    ((total, weight),) = reduce_sums(compose([("dpo", {"beta": beta})])(ratios))
    return total / weight


def trained(family: DenoiserFamily, how: Adapter, scale: float = 0.05) -> None:
    """Install an adapter and move every trainable weight, as training would."""
    groups = how.install(family, Random(0))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in (p for group in groups.values() for p in group):
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", list(registry))
def test_row_35_at_the_start_every_margin_is_exactly_zero_and_the_loss_ln_2(
    family: DenoiserFamily, kind: str, checkpointing: bool
) -> None:
    how = adapter(kind)
    groups = how.install(family, Random(0))
    if checkpointing:
        family.network.enable_gradient_checkpointing()
    roles = build_roles({"reference": RoleSpec()}, family, family.network, how)
    ratios = log_ratios(family, roles, pairs(family), grad=True)
    assert all((ratio == 0).all() for ratio in ratios.values())
    value = loss(ratios)
    assert value.item() == pytest.approx(math.log(2), abs=1e-7)
    value.backward()
    parameters = [p for group in groups.values() for p in group]
    assert sum(float(p.grad.abs().sum()) for p in parameters if p.grad is not None) > 0


@pytest.mark.parametrize("kind", list(registry))
def test_gradients_reach_all_that_is_trained_and_nothing_else(family: DenoiserFamily, kind: str) -> None:
    how = adapter(kind)
    trained(family, how)
    roles = build_roles({"reference": RoleSpec()}, family, family.network, how)
    if kind != "lora":  # the copy is of the trained network; move on, so that there is a margin
        with torch.no_grad():
            for parameter in family.network.parameters():
                parameter.mul_(1.01)
    loss(log_ratios(family, roles, pairs(family), grad=True), beta=10.0).backward()
    for name, parameter in family.network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and bool((parameter.grad != 0).any()), name
        else:
            assert parameter.grad is None, name
    frozen = roles["reference"].network
    assert frozen is family.network or all(p.grad is None for p in frozen.parameters())
    with pytest.raises(ConfigError, match="frozen role"):
        roles["reference"](pairs(family), grad=True)


@pytest.mark.parametrize("level", [True, "every_second"])
@pytest.mark.parametrize("kind", list(registry))
def test_checkpointing_gives_the_same_gradients(kind: str, level: bool | str) -> None:
    gradients = []
    for chosen in (False, level):
        family, how = MAKERS["sdxl"](), adapter(kind)
        trained(family, how)
        set_checkpointing(family, family.network, chosen)
        roles = build_roles({"reference": RoleSpec()}, family, family.network, how)
        loss(log_ratios(family, roles, pairs(family), grad=True)).backward()
        gradients.append({n: p.grad for n, p in family.network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_a_level_of_checkpointing_says_which_blocks_run_again_and_what_is_kept() -> None:
    family = MAKERS["sdxl"]()
    blocks = family.blocks(family.network)  # two down, one in the middle, two up
    ran: dict[int, int] = {}
    for number, block in enumerate(blocks):
        # counted on entering: the second time a forward stops as soon as it has what the gradient needs
        block.resnets[-1].register_forward_pre_hook(lambda *_, n=number: ran.update({n: ran.get(n, 0) + 1}))
    roles = build_roles({}, family, family.network.requires_grad_(True), adapter("full"))
    kept = []  # numbers that the forward leaves for the backward
    for level, expected in ((True, [2] * 5), ("every_second", [2, 1, 2, 1, 2]), (False, [1, 1, 1, 1, 1])):
        set_checkpointing(family, family.network, level)
        ran.clear()
        held: dict[int, int] = {}

        def pack(tensor: torch.Tensor, held: dict[int, int] = held) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            total = roles["policy"](pairs(family), grad=True)["prediction"].sum()
        kept.append(sum(held.values()))
        total.backward()
        assert [ran[number] for number in range(5)] == expected, level
    assert kept[0] < 0.75 * kept[1] < 0.75 * 0.95 * kept[2]


def test_the_reference_stays_where_training_began(family: DenoiserFamily) -> None:
    start = build_roles({}, family, family.network, adapter("full"))["policy"](pairs(family))["prediction"]
    for kind in registry:
        fresh = replace(family, network=UNet2DConditionModel.from_config(family.network.config).eval())
        fresh.network.load_state_dict(family.network.state_dict())
        how = adapter(kind)
        groups = how.install(fresh, Random(0))
        roles = build_roles({"reference": RoleSpec()}, fresh, fresh.network, how)
        with torch.no_grad():
            for parameter in (p for group in groups.values() for p in group):
                parameter.add_(0.1)
        assert torch.equal(roles["reference"](pairs(family))["prediction"], start)
        assert not torch.equal(roles["policy"](pairs(family))["prediction"], start)


def test_swapping_a_pair_negates_the_margin_exactly_and_a_batch_is_the_mean_of_its_singles(
    family: DenoiserFamily,
) -> None:
    how = adapter("lora")
    trained(family, how)
    roles = build_roles({"reference": RoleSpec()}, family, family.network, how)
    rows = pairs(family)
    ratios = log_ratios(family, roles, rows)
    margin = ratios["chosen_log_ratio"] - ratios["rejected_log_ratio"]
    swapped = replace(rows, groups={"chosen": rows.groups["rejected"], "rejected": rows.groups["chosen"]})
    turned = log_ratios(family, roles, swapped)
    assert (margin != 0).all()
    assert torch.equal(turned["chosen_log_ratio"] - turned["rejected_log_ratio"], -margin)
    singles = []
    for i in range(3):
        take = torch.tensor([i, i + 3])
        one = Rows(
            "denoising",
            {name: tensor[take] for name, tensor in rows.inputs.items()},
            rows.conditioning.take(take),
            {"chosen": torch.tensor([0]), "rejected": torch.tensor([1])},
        )
        singles.append(loss(log_ratios(family, roles, one), beta=10.0))
    torch.testing.assert_close(loss(ratios, beta=10.0), torch.stack(singles).mean(), rtol=1e-5, atol=1e-6)


def test_adapters_are_on_again_after_an_error_inside_the_gate(family: DenoiserFamily) -> None:
    how = adapter("lora")
    trained(family, how)
    policy = NetworkRole(family, family.network)
    rows = pairs(family)
    with_adapter = policy(rows)["prediction"]
    with pytest.raises(ZeroDivisionError), how.off(family.network):
        without = policy(rows)["prediction"]
        raise ZeroDivisionError
    assert not torch.equal(without, with_adapter)
    assert torch.equal(policy(rows)["prediction"], with_adapter)
    with how.off(family.network), how.off(family.network):
        pass
    assert torch.equal(policy(rows)["prediction"], with_adapter)
    assert all(p.requires_grad == ("lora" in n) for n, p in family.network.named_parameters())


def test_base_is_refused_where_there_is_nothing_to_switch_off(family: DenoiserFamily) -> None:
    full = adapter("full")
    with pytest.raises(ConfigError, match=r"roles\.reference\.source: 'base' needs an adapter"):
        build_roles({"reference": RoleSpec("base")}, family, family.network, full)
    with pytest.raises(ConfigError, match="use source 'copy'"), full.off(family.network):
        pass


def test_a_copy_can_be_the_reference_of_a_lora(family: DenoiserFamily) -> None:
    how = adapter("lora")
    how.install(family, Random(0))
    roles = build_roles({"reference": RoleSpec("copy")}, family, family.network, how)
    assert all((r == 0).all() for r in log_ratios(family, roles, pairs(family)).values())


def test_a_lora_starts_from_keyed_gaussians(family: DenoiserFamily) -> None:
    network = adapter("lora", rank=4).install(family, Random(3))["adapter"]
    assert {p.dtype for p in network} == {torch.float32}
    state = adapter("lora").state(family.network)
    first = torch.cat([t.flatten() for n, t in state.items() if "lora_A" in n])
    assert first.std().item() == pytest.approx(1 / 4, rel=0.1)
    assert all((t == 0).all() for n, t in state.items() if "lora_B" in n)
    torch.manual_seed(99)
    other = MAKERS["sd"]() if family.name == "sd" else MAKERS["sdxl"]()
    adapter("lora", rank=4).install(other, Random(3))
    again = adapter("lora").state(other.network)
    assert all(torch.equal(state[n], again[n]) for n in state)


def test_lora_weights_are_float32_under_a_half_precision_network(family: DenoiserFamily, tmp_path: Path) -> None:
    family.pipeline().save_pretrained(tmp_path)
    half = load_family(family.name, str(tmp_path), precision="bf16")
    how = adapter("lora")
    parameters = how.install(half, Random(0))["adapter"]
    assert {p.dtype for p in parameters} == {torch.float32}
    assert half.network.conv_in.weight.dtype == torch.bfloat16
    roles = build_roles({"reference": RoleSpec()}, half, half.network, how)
    ratios = log_ratios(half, roles, pairs(family), grad=True)
    assert all((ratio == 0).all() for ratio in ratios.values())
    loss(ratios).backward()
    assert any(bool((p.grad != 0).any()) for p in parameters if p.grad is not None)


@pytest.mark.parametrize("kind", list(registry))
def test_the_state_of_a_checkpoint_round_trips(family: DenoiserFamily, kind: str) -> None:
    how = adapter(kind)
    trained(family, how)
    state = {name: tensor.clone() for name, tensor in how.state(family.network).items()}
    before = NetworkRole(family, family.network)(pairs(family))["prediction"]
    with torch.no_grad():
        for parameter in family.network.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    how.load_state(family.network, state)
    assert torch.equal(NetworkRole(family, family.network)(pairs(family))["prediction"], before)


@pytest.mark.parametrize("kind", list(registry))
def test_a_state_that_does_not_fit_is_refused(kind: str) -> None:
    family, how = MAKERS["sd"](), adapter(kind)
    how.install(family, Random(0))
    state = dict(how.state(family.network))
    state.pop(next(iter(state)))
    with pytest.raises((CheckpointError, RuntimeError), match=r"do not fit: 1 names differ|Missing key"):
        how.load_state(family.network, state)


def test_targets_that_match_nothing_are_one_clear_line() -> None:
    with pytest.raises(ConfigError, match=r"^adapter\.targets: .*to_qq") as error:
        adapter("lora", targets=["to_qq"]).install(MAKERS["sd"](), Random(0))
    assert "\n" not in str(error.value)


def test_an_unknown_adapter_is_answered_with_the_closest_name() -> None:
    with pytest.raises(ConfigError, match="unknown adapter 'loral'; did you mean 'lora'"):
        registry.get("loral")
