"""What a language model's head says of given tokens, a part of them at a time: (tokens, vocabulary) is never whole.

The gradients are exact. With a frozen head (LoRA) they cost nothing but one product, already in the forward pass:
d log p(y) / d hidden = W[y] - sum_v p(v) W[v] does not depend on what comes from above, so (M, D) numbers are kept and
the backward pass multiplies. With a head that is trained itself the logits are computed again, going back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffpref.core.errors import ShapeError

__all__ = ["CHUNK_BYTES", "Head", "read_tokens"]

CHUNK_BYTES = 32 * 2**20
"""Of the logits that exist at a time, in the precision of the arithmetic."""


@dataclass(frozen=True)
class Head:
    """From hidden states to logits: ``soft_cap * tanh(scale * (hidden @ weight.T + bias) / soft_cap)``.

    Args:
        weight: (V, D), shared with the embedding or not.
        bias: (V,), or None.
        scale: factor of every logit (Cohere multiplies, Granite divides).
        soft_cap: bound of the logits (Gemma), or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    soft_cap: float | None = None

    @property
    def trained(self) -> bool:
        """Whether gradients flow into it."""
        return self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return (M, V) for (M, D), float32 or wider."""
        return _squash(_products(hidden, _wide(self.weight, hidden), self.bias), self)


def read_tokens(
    hidden: Tensor,
    head: Head,
    tokens: Tensor,
    against: tuple[Tensor, Head] | None = None,
    collision: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
) -> dict[str, Tensor]:
    """Return what is asked of each token, (M,) each, float32 or, for float64 hidden states, float64.

    - ``logps``: log p(token), with gradient.
    - ``kl``: KL(other || this) over the vocabulary, where another model is given. Gradient flows into this model alone.
    - ``other_logps``: log p(token) of the other model, without gradient.
    - ``collision``: log sum_v p(v)^2, the log-probability that two draws agree, without gradient.

    Args:
        hidden: (M, D) hidden states that predict the tokens.
        head: of the same model.
        tokens: (M,) int64.
        against: hidden states (M, D') of another model at the same places, and its head over the same vocabulary.
        collision: whether that is asked.
        chunk_bytes: see `CHUNK_BYTES`.

    Raises:
        ShapeError: the parts do not fit each other.
    """
    _check(hidden, head, tokens, against)
    grad = torch.is_grad_enabled() and (hidden.requires_grad or head.trained)
    with torch.autocast(hidden.device.type, enabled=False):
        other = None if against is None else (against[0].detach(), against[1])
        settings = _Settings(head, other, collision, chunk_bytes, grad)
        logps, kl, other_logps, collided = _Read.apply(hidden, head.weight, head.bias, tokens, settings)
    found = {"logps": logps}
    if against is not None:
        found |= {"kl": kl, "other_logps": other_logps}
    if collision:
        found["collision"] = collided
    return found


def _check(hidden: Tensor, head: Head, tokens: Tensor, against: tuple[Tensor, Head] | None) -> None:
    sizes = [(hidden, head), *([against] if against is not None else [])]
    for states, one in sizes:
        if states.dim() != 2 or states.shape[0] != tokens.shape[0] or states.shape[1] != one.weight.shape[1]:
            raise ShapeError(
                f"hidden states {tuple(states.shape)} must be (tokens, width): {len(tokens)} tokens, and the head is"
                f" {tuple(one.weight.shape)}"
            )
    if against is not None and len(against[1].weight) != len(head.weight):
        raise ShapeError(
            f"two models of different vocabularies, {len(head.weight)} and {len(against[1].weight)} words, have no KL"
        )


@dataclass(frozen=True)
class _Settings:
    head: Head
    against: tuple[Tensor, Head] | None
    collision: bool
    chunk_bytes: int
    grad: bool


class _Read(torch.autograd.Function):
    """Chunks of tokens through the head, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, settings: _Settings
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        head, against = settings.head, settings.against
        wide, other_wide = _wide(weight, hidden), None if against is None else _wide(against[1].weight, hidden)
        dtype, count = wide.dtype, len(tokens)
        logps, kl, other, collided = torch.empty((4, count), dtype=dtype, device=hidden.device).unbind()
        slopes = settings.grad and not head.trained and hidden.requires_grad
        along, along_kl = hidden.new_empty(0, dtype=dtype), hidden.new_empty(0, dtype=dtype)
        if slopes:
            along = torch.empty(hidden.shape, dtype=dtype, device=hidden.device)
            along_kl = torch.empty_like(along) if against is not None else along_kl
        for part in _parts(count, len(weight), dtype, settings.chunk_bytes):
            logits = _squash(_products(hidden[part], wide, bias), head)
            steep = _steepness(logits, head)
            said = torch.log_softmax(logits, dim=-1)
            del logits
            given = tokens[part].unsqueeze(1)
            logps[part] = said.gather(1, given).squeeze(1)
            theirs = None
            if against is not None and other_wide is not None:
                states, their_head = against
                their_logits = _squash(_products(states[part], other_wide, their_head.bias), their_head)
                their_said = torch.log_softmax(their_logits, dim=-1)
                del their_logits
                other[part] = their_said.gather(1, given).squeeze(1)
                theirs = their_said.exp()
                kl[part] = their_said.sub_(said).mul_(theirs).sum(dim=-1)
                del their_said
            if settings.collision:
                collided[part] = torch.logsumexp(2 * said, dim=-1)
            if slopes:
                own = _pulled(said.exp_(), steep, wide)
                along[part] = _picked(wide, given.squeeze(1), steep) - own
                if theirs is not None:
                    along_kl[part] = own - _pulled(theirs, steep, wide)
        if settings.grad:
            ctx.settings, ctx.slopes = settings, slopes
            if slopes:
                ctx.save_for_backward(along, along_kl)
            else:
                ctx.save_for_backward(hidden, weight, bias, tokens)
        ctx.mark_non_differentiable(other, collided)
        return logps, kl, other, collided

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:
        on_logps, on_kl = above[0], above[1]
        head: Head = ctx.settings.head
        if ctx.slopes:
            along, along_kl = ctx.saved_tensors
            down = along * on_logps.unsqueeze(1)
            if len(along_kl):
                down.addcmul_(along_kl, on_kl.unsqueeze(1))
            return (down.mul_(head.scale), None, None, None, None)
        return _again(ctx, on_logps, on_kl)


def _again(ctx: Any, on_logps: Tensor, on_kl: Tensor) -> tuple[Tensor | None, ...]:
    """Compute the logits once more, for a head that is trained."""
    hidden, weight, bias, tokens = ctx.saved_tensors
    head, against = ctx.settings.head, ctx.settings.against
    wide, other_wide = _wide(weight, hidden), None if against is None else _wide(against[1].weight, hidden)
    needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    down = torch.empty(hidden.shape, dtype=wide.dtype, device=hidden.device) if needs_hidden else None
    to_weight = torch.zeros_like(wide) if needs_weight else None
    to_bias = torch.zeros(len(wide), dtype=wide.dtype, device=wide.device) if needs_bias else None
    for part in _parts(len(tokens), len(weight), wide.dtype, ctx.settings.chunk_bytes):
        logits = _squash(_products(hidden[part], wide, bias), head)
        steep = _steepness(logits, head)
        own = torch.softmax(logits, dim=-1)
        del logits
        pull = own * (on_kl[part] - on_logps[part] if against is not None else -on_logps[part]).unsqueeze(1)
        del own
        pull.scatter_add_(1, tokens[part].unsqueeze(1), on_logps[part].unsqueeze(1))
        if against is not None and other_wide is not None:
            states, their_head = against
            theirs = torch.softmax(_squash(_products(states[part], other_wide, their_head.bias), their_head), dim=-1)
            pull.addcmul_(theirs, on_kl[part].unsqueeze(1), value=-1)
        if steep is not None:
            pull.mul_(steep)
        pull.mul_(head.scale)
        if down is not None:
            torch.mm(pull, wide, out=down[part])
        if to_weight is not None:
            to_weight.addmm_(pull.t(), hidden[part].to(wide.dtype))
        if to_bias is not None:
            to_bias.add_(pull.sum(dim=0))
    return (
        None if down is None else down.to(hidden.dtype),
        None if to_weight is None else to_weight.to(weight.dtype),
        None if to_bias is None or bias is None else to_bias.to(bias.dtype),
        None,
        None,
    )


def _parts(count: int, words: int, dtype: torch.dtype, chunk_bytes: int) -> list[slice]:
    """Divide tokens so that the logits of a part fit; parts are as equal as they can be."""
    most = max(1, chunk_bytes // (words * dtype.itemsize))
    number = -(-count // most)
    size = -(-count // number) if number else 1
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _wide(weight: Tensor, hidden: Tensor) -> Tensor:
    """Return a weight in the precision of the arithmetic: float32, or float64 where both are."""
    double = weight.dtype == hidden.dtype == torch.float64
    return weight.detach().to(torch.float64 if double else torch.float32)


def _products(hidden: Tensor, wide: Tensor, bias: Tensor | None) -> Tensor:
    states = hidden.detach().to(wide.dtype)
    return states @ wide.t() if bias is None else torch.addmm(bias.detach().to(wide.dtype), states, wide.t())


def _squash(logits: Tensor, head: Head) -> Tensor:
    if head.scale != 1.0:
        logits = logits.mul_(head.scale)
    if head.soft_cap is not None:
        logits = logits.div_(head.soft_cap).tanh_().mul_(head.soft_cap)
    return logits


def _steepness(logits: Tensor, head: Head) -> Tensor | None:
    """Return d capped / d uncapped logit; None where it is 1."""
    return None if head.soft_cap is None else 1 - (logits / head.soft_cap).square_()


def _pulled(probabilities: Tensor, steep: Tensor | None, wide: Tensor) -> Tensor:
    return (probabilities if steep is None else probabilities * steep) @ wide


def _picked(wide: Tensor, tokens: Tensor, steep: Tensor | None) -> Tensor:
    rows = wide[tokens]
    return rows if steep is None else rows * steep.gather(1, tokens.unsqueeze(1))
