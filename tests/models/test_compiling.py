"""Compiled networks answer as plain ones do: the same start, the same gradients, whichever adapter is on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.core.contracts import Conditioning
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.models import registry as families
from diffpref.models.adapters import registry
from diffpref.models.compiling import compile_network
from diffpref.models.family import DenoiserFamily
from diffpref.models.gates import enter
from diffpref.models.recompute import set_checkpointing

Asked = tuple[Tensor, Tensor, dict[str, Tensor]]


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    import torch._dynamo

    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def rows(size: int = 4) -> tuple[dict[str, Tensor], Conditioning]:
    generator = torch.Generator().manual_seed(1)
    noisy, embeds, pooled = (torch.randn(size, *s, generator=generator) for s in ((4, 8, 8), (16, 32), (16,)))
    told = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled, "time_ids": torch.full((size, 6), 64.0)}
    return {"noisy": noisy, "timesteps": torch.tensor([10, 500, 300, 900])}, Conditioning(told)


def ask(kind: str, *, compiled: str | None, checkpointing: bool, whole: bool = False) -> Asked:
    """Ask reference, policy, reference, then go back; return both answers and the gradient.

    The reference is the network without its LoRA, a copy, or a ``peer``: a second LoRA that is trained too.
    """
    torch.manual_seed(0)
    family: DenoiserFamily = families.get("sdxl").tiny()
    adapter = registry.get("full" if kind == "full" else "lora")(rank=4)
    adapter.install(family, Random(0))
    held = adapter.copy(family, "other")
    for name, parameter in family.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
        if ".other." in name and kind == "peer":
            parameter.requires_grad_(True)
    set_checkpointing(family, family.network, checkpointing)
    for network in {id(n): n for n in (family.network, held.network)}.values():
        middle = network.mid_block  # one block, which has attention, compiles in seconds; under inductor less of it
        block = middle if compiled == "aot_eager" else middle.attentions[0].transformer_blocks[0].attn1
        if compiled and whole:
            compile_network(network, family.blocks(network), "full", compiled)
        elif compiled:
            compile_network(network, [block], "regional", compiled)
    gates: dict[str, Callable[[], Any]] = {"lora": lambda: adapter.off(family.network), "full": nullcontext}
    gate, inputs = gates.get(kind, held.gate), rows()

    def refer() -> Tensor:
        with torch.set_grad_enabled(kind == "peer"), enter(gate):
            return family.forward(held.network if kind == "full" else family.network, *inputs)

    first = refer()
    policy = family.forward(family.network, *inputs)
    again = refer()
    assert torch.equal(first, again)
    (policy.square().mean() + 2 * again.square().mean()).backward()
    found = {n: p.grad for n, p in family.network.named_parameters() if p.grad is not None}
    return policy.detach(), first.detach(), found


@pytest.mark.parametrize(("kind", "checkpointing"), [("lora", False), ("lora", True), ("full", True), ("peer", True)])
def test_compiled_blocks_answer_and_learn_as_plain_ones(kind: str, checkpointing: bool) -> None:
    """The reference runs with the adapter off, or another one on, between the policy's forward and its way back."""
    policy, reference, gradient = ask(kind, compiled=None, checkpointing=False)
    ours, theirs, found = ask(kind, compiled="aot_eager", checkpointing=checkpointing)
    assert torch.equal(ours, policy) and torch.equal(theirs, reference)
    assert torch.equal(policy, reference) == (kind == "full") and found.keys() == gradient.keys()
    assert distance(found, gradient) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "checkpointing"), [("lora", False), ("full", True)])
def test_a_network_compiled_whole_answers_and_learns_as_the_plain_one(kind: str, checkpointing: bool) -> None:
    policy, reference, gradient = ask(kind, compiled=None, checkpointing=False)
    ours, theirs, found = ask(kind, compiled="aot_eager", checkpointing=checkpointing, whole=True)
    torch.testing.assert_close((ours, theirs), (policy, reference), rtol=0, atol=1e-6)
    assert torch.equal(ours, theirs) == (kind == "full") and found.keys() == gradient.keys()
    assert distance(found, gradient) <= 1e-5


def distance(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    away = sum((found[name] - wanted[name]).double().square().sum() for name in wanted)
    return float((away / sum(tensor.double().square().sum() for tensor in wanted.values())) ** 0.5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_what_the_real_compiler_makes_answers_and_learns_as_the_plain_network() -> None:
    policy, reference, gradient = ask("lora", compiled=None, checkpointing=False)
    ours, theirs, found = ask("lora", compiled="inductor", checkpointing=True)
    torch.testing.assert_close((ours, theirs), (policy, reference), rtol=1e-5, atol=1e-6)
    assert distance(found, gradient) <= 1e-5 and found.keys() == gradient.keys()


def test_an_unknown_backend_is_refused() -> None:
    network = families.get("sdxl").tiny().network
    with pytest.raises(ConfigError, match=r"model\.compile_backend: unknown 'inducter'; did you mean 'inductor'\?"):
        compile_network(network, [network.mid_block], "regional", "inducter")
    assert network.mid_block._compiled_call_impl is None
