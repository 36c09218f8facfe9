"""Every source of a role: where its weights come from, that its gate leaves nothing behind, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.core.contracts import RoleSpec, Rows
from diffpref.core.errors import ConfigError, ModelError
from diffpref.core.randomness import Random
from diffpref.models import registry as families
from diffpref.models.adapters import Adapter
from diffpref.models.adapters._peft import layers
from diffpref.models.adapters.full import Full
from diffpref.models.adapters.lora import Lora
from diffpref.models.family import DenoiserFamily
from diffpref.models.recompute import set_checkpointing
from diffpref.models.roles import PlacedRole, build_roles, place_roles, view_roles

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def tiny(how: Adapter | None = None, moved: float = 0.0) -> DenoiserFamily:
    family = families.get("sdxl").tiny()
    if how is not None:
        trained = [p for group in how.install(family, Random(0)).values() for p in group]
        move(trained, moved)
    return family


@torch.no_grad()
def move(parameters: list[Any], by: float, seed: int = 7) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.add_(by * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="module")
def rows() -> Rows:
    family, generator = tiny(), torch.Generator().manual_seed(0)
    clean, noise = (torch.randn((2, 4, 8, 8), generator=generator) for _ in range(2))
    timesteps = torch.tensor([400, 20])
    told = family.encode_prompt(["a", "b"], 64)
    inputs = {
        "noisy": family.add_noise(clean, noise, timesteps),
        "timesteps": timesteps,
        "target": family.target(clean, noise, timesteps),
    }
    return Rows("denoising", inputs, told, {"chosen": torch.arange(1), "rejected": torch.arange(1) + 1})


def place(family: DenoiserFamily, how: Adapter, **specs: RoleSpec) -> tuple[dict[str, PlacedRole], Mapping[str, Any]]:
    placed = place_roles(specs, family, how, Random(0))
    return placed, view_roles(placed, family, family.network)


def answer(roles: Mapping[str, Any], name: str, rows: Rows) -> Tensor:
    return roles[name](rows)["prediction"]


@pytest.mark.parametrize("how", [Lora(rank=4, alpha=16.0), Full()], ids=["lora", "full"])
def test_a_copy_stays_where_training_began_and_is_bit_equal_until_then(how: Adapter, rows: Rows) -> None:
    family = tiny(how, moved=0.05)
    placed, roles = place(family, how, reference=RoleSpec("copy"))
    start = answer(roles, "policy", rows)
    assert torch.equal(answer(roles, "reference", rows), start)
    was = placed["reference"].digest()
    move([p for p in family.network.parameters() if p.requires_grad], 0.1)
    assert torch.equal(answer(roles, "reference", rows), start) and placed["reference"].digest() == was
    assert not torch.equal(answer(roles, "policy", rows), start)
    assert placed["reference"].complaint() is None and placed["reference"].frozen


def test_a_lora_copy_shares_the_network_and_is_a_few_weights(rows: Rows) -> None:
    how = Lora(rank=4)
    family = tiny(how)
    before = sum(p.numel() for p in family.network.parameters())
    placed, _ = place(family, how, reference=RoleSpec("copy"), previous=RoleSpec("copy"))
    assert all(role.held.network is family.network for role in placed.values())
    own = sum(t.numel() for t in placed["reference"].weights().values())
    assert sum(p.numel() for p in family.network.parameters()) == before + 2 * own


def test_what_can_move_is_a_copy_and_what_cannot_is_the_base(rows: Rows) -> None:
    how = Lora(rank=4)
    placed, _ = place(tiny(how), how, reference=RoleSpec(), previous=RoleSpec(update="round"))
    assert (placed["reference"].source, placed["previous"].source) == ("base", "copy")
    full = Full()
    placed, _ = place(tiny(full), full, reference=RoleSpec(), previous=RoleSpec("policy"))
    assert (placed["reference"].source, placed["previous"].source) == ("copy", "policy")
    assert not placed["previous"].frozen


def test_a_fresh_adapter_starts_as_the_base_with_draws_of_its_own(rows: Rows) -> None:
    how = Lora(rank=4)
    family = tiny(how, moved=0.05)
    placed, roles = place(family, how, reference=RoleSpec(), peer=RoleSpec("adapter", trained=True))
    assert torch.equal(answer(roles, "peer", rows), answer(roles, "reference", rows))
    weights = placed["peer"].weights()
    other = how.state(family.network)
    assert all(not torch.equal(weights[name], other[name]) for name in weights if "lora_A" in name)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in placed["peer"].parameters)


@pytest.mark.parametrize("level", [False, True, "every_second"])
def test_a_peer_gets_its_own_gradients_also_where_activations_are_recomputed(rows: Rows, level: bool | str) -> None:
    """Recomputed after the call, with the policy's weights, the peer's gradients would be others, silently."""
    how = Lora(rank=4)
    family = tiny(how, moved=0.05)
    placed, roles = place(family, how, peer=RoleSpec("adapter", trained=True), reference=RoleSpec())
    move(list(placed["peer"].parameters), 0.3, seed=8)
    set_checkpointing(family, family.network, level)
    alone = {}
    for name in ("peer", "policy"):
        roles[name](rows, grad=True)["prediction"].square().sum().backward()
        alone |= {n: p.grad.clone() for n, p in family.network.named_parameters() if p.grad is not None}
        family.network.zero_grad(set_to_none=True)
    answers = [roles[name](rows, grad=True)["prediction"] for name in ("policy", "peer")]
    roles["reference"](rows)
    sum(a.square().sum() for a in answers).backward()  # type: ignore[union-attr]
    together = {n: p.grad for n, p in family.network.named_parameters() if p.grad is not None}
    assert together.keys() == alone.keys() == {n for n, p in family.network.named_parameters() if p.requires_grad}
    assert {name.rsplit(".", 2)[1] for name in together} == {"default", "peer"}
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, alone[name], rtol=1e-4, atol=1e-5)
    plain = tiny(Lora(rank=4), moved=0.05)  # without a peer, without checkpointing
    build_roles({}, plain, plain.network, how)["policy"](rows, grad=True)["prediction"].square().sum().backward()
    for name, parameter in plain.network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(together[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_no_gate_leaves_anything_behind(rows: Rows) -> None:
    how = Lora(rank=4)
    family = tiny(how, moved=0.05)
    specs = {"peer": RoleSpec("adapter", trained=True), "previous": RoleSpec("copy"), "reference": RoleSpec()}
    placed, roles = place(family, how, **specs)
    set_checkpointing(family, family.network, True)

    def state() -> Any:
        switched = [(layer._active_adapter, layer._disable_adapters) for layer in layers(family.network)]
        return copy.deepcopy(switched), [(n, p.requires_grad) for n, p in family.network.named_parameters()]

    before, policy = state(), answer(roles, "policy", rows)
    for name in roles:
        answer(roles, name, rows)
        assert state() == before
    roles["peer"](rows, grad=True)["prediction"].sum().backward()
    assert state() == before
    for role in placed.values():
        with pytest.raises(ZeroDivisionError), role.held.gate():
            raise ZeroDivisionError
    with placed["peer"].held.gate(), placed["reference"].held.gate():
        pass
    assert state() == before and torch.equal(answer(roles, "policy", rows), policy)
    trained = {n for n, p in family.network.named_parameters() if p.requires_grad}
    assert {name.rsplit(".", 2)[1] for name in trained} == {"default", "peer"}


# ---------------------------------------------------------------- paths


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, rows: Rows) -> tuple[Path, Tensor]:
    """A LoRA with alpha other than its rank, as a run leaves it, and what it answers."""
    how, folder = Lora(rank=4, alpha=16.0), tmp_path_factory.mktemp("lora")
    family = tiny(how, moved=0.1)
    how.save(family, family.network, folder)
    return folder, answer(build_roles({}, family, family.network, how), "policy", rows)


@pytest.mark.parametrize("how", [Lora(rank=2), Full()], ids=["lora", "full"])
def test_a_lora_at_a_path_answers_as_it_was_trained(how: Adapter, saved: tuple[Path, Tensor], rows: Rows) -> None:
    folder, expected = saved
    family = tiny(how)
    policy = answer(build_roles({}, family, family.network, how), "policy", rows)
    placed, roles = place(family, how, reference=RoleSpec("path", path=str(folder)))
    torch.testing.assert_close(answer(roles, "reference", rows), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(answer(roles, "policy", rows), policy)
    assert placed["reference"].complaint() is None and placed["reference"].shared == how.has_base


@pytest.mark.parametrize("kind", ["pipeline", "denoiser alone"])
@pytest.mark.parametrize("how", [Lora(rank=2), Full()], ids=["lora", "full"])
def test_a_model_at_a_path_answers_as_it_was_trained(how: Adapter, kind: str, rows: Rows, tmp_path: Path) -> None:
    other = tiny(Full(), moved=0.05)
    expected = answer(build_roles({}, other, other.network, Full()), "policy", rows)
    if kind == "pipeline":
        other.pipeline().save_pretrained(tmp_path)
    else:
        Full().save(other, other.network, tmp_path)
    placed, roles = place(tiny(how), how, reference=RoleSpec("path", path=str(tmp_path)))
    torch.testing.assert_close(answer(roles, "reference", rows), expected, rtol=1e-5, atol=1e-6)
    assert placed["reference"].complaint() is None and not placed["reference"].shared


def test_a_policy_that_starts_from_a_lora_has_it_as_its_reference(saved: tuple[Path, Tensor], rows: Rows) -> None:
    folder, expected = saved
    how = Lora(rank=4, start=str(folder))
    family = tiny(how)
    placed, roles = place(family, how, reference=RoleSpec())
    start = answer(roles, "policy", rows)
    torch.testing.assert_close(start, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(answer(roles, "reference", rows), start) and placed["reference"].source == "copy"
    trained = {n for n, p in family.network.named_parameters() if p.requires_grad}
    assert trained and all("default" in name for name in trained)
    move([p for p in family.network.parameters() if p.requires_grad], 0.1)
    assert torch.equal(answer(roles, "reference", rows), start) and not torch.equal(
        answer(roles, "policy", rows), start
    )
    how.save(family, family.network, folder / "again")
    again = tiny(Lora(rank=4, start=str(folder / "again")))
    assert torch.equal(
        answer(build_roles({}, again, again.network, how), "policy", rows), answer(roles, "policy", rows)
    )


def test_base_is_refused_as_the_reference_of_a_policy_that_started_from_a_lora(saved: tuple[Path, Tensor]) -> None:
    how = Lora(rank=4, start=str(saved[0]))
    family = tiny(how)
    with pytest.raises(
        ConfigError, match=r"^roles\.reference\.source: 'base' would leave out .* from which the policy"
    ):
        place(family, how, reference=RoleSpec("base"))
    assert place(family, how, guide=RoleSpec("base"))[0]["guide"].source == "base"


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"rank": 8}, r"adapter\.rank: must be that of adapter\.start, 4, got 8"),
        ({"rank": 4, "alpha": 4.0}, r"adapter\.alpha: must be that of adapter\.start, 16, got 4"),
        ({"rank": 4, "targets": ["to_q"]}, r"adapter\.targets: must not be given with adapter\.start"),
    ],
)
def test_a_recipe_that_asks_for_another_shape_than_its_start_is_refused(
    how: dict[str, Any], line: str, saved: tuple[Path, Tensor]
) -> None:
    with pytest.raises(ConfigError, match=line):
        tiny(Lora(start=str(saved[0]), **how))


def test_a_full_fine_tuning_cannot_start_from_a_lora() -> None:
    with pytest.raises(ConfigError, match=r"^adapter\.start: is a LoRA's; with adapter\.kind full"):
        Full(start="x")


def test_what_is_no_lora_or_another_models_is_one_line(saved: tuple[Path, Tensor], tmp_path: Path) -> None:
    how = Lora(rank=4)
    with pytest.raises(ModelError, match=r"^roles\.reference\.path: .*nowhere is neither a folder nor a hub id"):
        place(tiny(how), how, reference=RoleSpec("path", path=str(tmp_path / "nowhere")))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/pytorch_lora_weights.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match=r"^roles\.reference\.path: .*broken: no LoRA for this model"):
        place(tiny(how), how, reference=RoleSpec("path", path=str(tmp_path / "broken")))
    with pytest.raises(ModelError, match=r"^adapter\.start: .*nowhere: holds no LoRA"):
        tiny(Lora(start=str(tmp_path / "nowhere")))
    other = families.get("sd").tiny()
    with pytest.raises(ModelError, match=r"^roles\.reference\.path: .*: no LoRA for this model"):
        place_roles({"reference": RoleSpec("path", path=str(saved[0]))}, _installed(other, how), how, Random(0))
    with pytest.raises(ConfigError, match=r"^roles\.previous\.path: .* is of another shape than the policy"):
        small = Lora(rank=2)
        place(tiny(small), small, previous=RoleSpec("path", "round", path=str(saved[0])))


def _installed(family: DenoiserFamily, how: Adapter) -> DenoiserFamily:
    how.install(family, Random(0))
    return family


def test_every_role_that_cannot_be_had_is_told_at_once() -> None:
    full = Full()
    with pytest.raises(ConfigError) as caught:
        place(tiny(full), full, reference=RoleSpec("base"), peer=RoleSpec("adapter", trained=True))
    assert str(caught.value).splitlines() == [
        "roles.reference.source: 'base' needs an adapter that can be switched off; use 'copy'",
        "roles.peer.source: 'adapter' needs adapter.kind lora; use source 'copy'",
    ]


def test_the_initial_model_can_be_the_reference_of_a_policy_that_started_from_a_lora(
    saved: tuple[Path, Tensor], rows: Rows
) -> None:
    """Unlike 'base', whose log-ratios are meant to begin at 0; loops ask for it whose anchor stays."""
    how = Lora(start=str(saved[0]), rank=4)
    family, specs = tiny(how), {"reference": RoleSpec("initial")}
    roles = build_roles(specs, family, family.network, how)
    plain = tiny(Lora(rank=2))  # a LoRA of nothing
    untouched = answer(build_roles({}, plain, plain.network, Lora(rank=2)), "policy", rows)
    torch.testing.assert_close(answer(roles, "reference", rows), untouched)
    torch.testing.assert_close(answer(roles, "policy", rows), saved[1], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(untouched, saved[1])
    whole = tiny(Full())
    with pytest.raises(ConfigError, match="'initial' needs an adapter that can be switched off"):
        build_roles(specs, whole, whole.network, Full())
