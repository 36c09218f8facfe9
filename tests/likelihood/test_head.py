"""The chunked head against the plain way: full logits, log-softmax, autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffpref.core.errors import ShapeError
from diffpref.likelihood.head import Head, read_tokens

WORDS, WIDTH, TOKENS = 37, 5, 11
HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "scale": {"scale": 0.3},
    "soft cap": {"soft_cap": 1.5},
    "all": {"bias": True, "scale": 1.7, "soft_cap": 2.0},
}


def make(kind: str, seed: int = 0, dtype: torch.dtype = torch.float64, trained: bool = False) -> tuple[Tensor, Head]:
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = dict(HEADS[kind])
    weight = torch.randn(WORDS, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    bias = (
        torch.randn(WORDS, generator=generator, dtype=torch.float64).to(dtype) if options.pop("bias", False) else None
    )
    for tensor in (weight, bias):
        if tensor is not None:
            tensor.requires_grad_(trained)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    return hidden.requires_grad_(), Head(weight, bias, **options)


def plain_logits(hidden: Tensor, head: Head) -> Tensor:
    logits = hidden @ head.weight.T
    if head.bias is not None:
        logits = logits + head.bias
    logits = head.scale * logits
    return logits if head.soft_cap is None else head.soft_cap * torch.tanh(logits / head.soft_cap)


def plainly(hidden: Tensor, head: Head, tokens: Tensor, against: tuple[Tensor, Head]) -> dict[str, Tensor]:
    said = plain_logits(hidden, head).log_softmax(-1)
    theirs = plain_logits(*against).log_softmax(-1).detach()
    return {
        "logps": said.gather(1, tokens[:, None])[:, 0],
        "kl": (theirs.exp() * (theirs - said)).sum(-1),
        "other_logps": theirs.gather(1, tokens[:, None])[:, 0],
        "collision": said.exp().square().sum(-1).log().detach(),
    }


def some_tokens() -> Tensor:
    return torch.randint(0, WORDS, (TOKENS,), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("chunk_bytes", [1, 3 * WORDS * 8, 2**20])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("kind", HEADS)
def test_values_and_gradients_are_those_of_the_whole_softmax(kind: str, trained: bool, chunk_bytes: int) -> None:
    tokens, other = some_tokens(), make(kind, seed=1)
    weights = torch.randn(2, TOKENS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    results = []
    for way in ("ours", "plain"):
        hidden, head = make(kind, trained=trained)
        if way == "ours":
            found = read_tokens(hidden, head, tokens, other, collision=True, chunk_bytes=chunk_bytes)
        else:
            found = plainly(hidden, head, tokens, other)
        ((weights[0] * found["logps"]).sum() + (weights[1] * found["kl"]).sum()).backward()
        gradients = [t.grad for t in (hidden, head.weight, head.bias) if t is not None and t.grad is not None]
        assert len(gradients) == 1 + trained * (1 + (head.bias is not None))
        results.append(([found[name].detach() for name in ("logps", "kl", "other_logps", "collision")], gradients))
    for ours, plain in zip(*results, strict=True):
        for one, two in zip(ours, plain, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
    assert other[0].grad is None


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("kind", ["plain", "all"])
def test_gradcheck(kind: str, trained: bool) -> None:
    hidden, head = make(kind, trained=trained)
    tokens, other = some_tokens(), make(kind, seed=1)

    def both(states: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
        own = Head(parts[0], parts[1] if len(parts) > 1 else None, head.scale, head.soft_cap)
        found = read_tokens(states, own, tokens, other, chunk_bytes=4 * WORDS * 8)
        return found["logps"], found["kl"]

    parts = (head.weight,) if head.bias is None else (head.weight, head.bias)
    assert torch.autograd.gradcheck(both, (hidden, *parts))


def test_a_kl_against_itself_is_nothing_and_never_negative() -> None:
    hidden, head = make("plain")
    found = read_tokens(hidden, head, some_tokens(), (hidden, head))
    torch.testing.assert_close(found["kl"], torch.zeros_like(found["kl"]), rtol=0, atol=1e-12)
    assert (read_tokens(hidden, head, some_tokens(), make("plain", seed=1))["kl"] > 0).all()


def test_half_precision_is_summed_in_single() -> None:
    hidden, head = make("plain", dtype=torch.bfloat16)
    exact = Head(head.weight.double())
    wide = hidden.detach().double().requires_grad_()
    rough, fine = read_tokens(hidden, head, some_tokens()), read_tokens(wide, exact, some_tokens())
    assert rough["logps"].dtype == torch.float32
    torch.testing.assert_close(rough["logps"].double(), fine["logps"], rtol=1e-5, atol=1e-5)
    rough["logps"].sum().backward()
    fine["logps"].sum().backward()
    assert hidden.grad is not None and wide.grad is not None and hidden.grad.dtype == torch.bfloat16
    torch.testing.assert_close(hidden.grad.double(), wide.grad, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("trained", [False, True])
def test_extreme_logits_stay_finite(trained: bool) -> None:
    hidden, head = make("plain", dtype=torch.float32, trained=trained)
    states = (1e4 * hidden.detach()).requires_grad_()
    other = (-states.detach(), head)
    found = read_tokens(states, head, some_tokens(), other, collision=True)
    (found["logps"].sum() + found["kl"].sum()).backward()
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert states.grad is not None and states.grad.isfinite().all()


class Largest(TorchDispatchMode):
    """Remembers the most elements that a tensor had."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.numel())
        return result


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("joint", [False, True])
def test_logits_of_all_tokens_never_exist(trained: bool, joint: bool) -> None:
    words, width, count, chunk = 5000, 8, 400, 64 * 5000 * 4
    generator = torch.Generator().manual_seed(0)
    head = Head(torch.randn(words, width, generator=generator).requires_grad_(trained))
    hidden = torch.randn(count, width, generator=generator).requires_grad_()
    tokens = torch.randint(0, words, (count,), generator=generator)
    against = (torch.randn(count, width, generator=generator), Head(head.weight.detach())) if joint else None
    with Largest() as watch:
        found = read_tokens(hidden, head, tokens, against, collision=True, chunk_bytes=chunk)
        found["logps"].sum().backward()
    assert watch.elements <= chunk // 4 < words * count / 6
    with Largest() as watch:  # the watch does see a whole softmax
        plain_logits(hidden, head).log_softmax(-1).sum().backward()
    assert watch.elements == words * count


def test_nothing_is_kept_for_a_model_that_is_not_trained() -> None:
    hidden, head = make("plain")
    with torch.no_grad():
        found = read_tokens(hidden, head, some_tokens())
    assert not found["logps"].requires_grad
    frozen = read_tokens(hidden.detach(), head, some_tokens())
    assert not frozen["logps"].requires_grad


def test_no_tokens_give_no_numbers() -> None:
    hidden, head = make("plain")
    found = read_tokens(hidden[:0], head, some_tokens()[:0])
    assert found["logps"].shape == (0,)


def test_parts_that_do_not_fit_are_named() -> None:
    hidden, head = make("plain")
    with pytest.raises(ShapeError, match="11 tokens"):
        read_tokens(hidden[:3], head, some_tokens())
    other = (hidden, Head(torch.zeros(WORDS + 1, WIDTH, dtype=torch.float64)))
    with pytest.raises(ShapeError, match="vocabularies, 37 and 38"):
        read_tokens(hidden, head, some_tokens(), other)
