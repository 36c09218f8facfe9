"""Compiled networks answer as plain ones do: the same start, the same gradients, whichever adapter is on."""

from __future__ import annotations

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


def ask(kind: str, *, compiled: bool, checkpointing: bool) -> Asked:
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
        if compiled:  # one block: the middle one has attention, and compiles in seconds
            compile_network(network, [network.mid_block], "regional", "aot_eager")
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
    policy, reference, gradient = ask(kind, compiled=False, checkpointing=False)
    ours, theirs, found = ask(kind, compiled=True, checkpointing=checkpointing)
    assert torch.equal(ours, policy) and torch.equal(theirs, reference)
    assert torch.equal(policy, reference) == (kind == "full") and found.keys() == gradient.keys()
    away = sum((found[n] - gradient[n]).double().square().sum() for n in gradient) ** 0.5
    assert away <= 1e-6 * sum(gradient[n].double().square().sum() for n in gradient) ** 0.5


def test_an_unknown_backend_is_refused() -> None:
    network = families.get("sdxl").tiny().network
    with pytest.raises(ConfigError, match=r"model\.compile_backend: unknown 'inducter'; did you mean 'inductor'\?"):
        compile_network(network, [network.mid_block], "regional", "inducter")
    assert network.mid_block._compiled_call_impl is None
