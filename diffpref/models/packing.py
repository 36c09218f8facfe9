"""Rows of tokens without padding, and a prompt only once: what is left is put after one another in a single row.

Everything but attention treats tokens apart from each other, so most of a decoder runs on the tokens that there are.
Attention alone sees rows again: its inputs are gathered to (N, T), where a shared prompt stands in each of its rows,
and its output goes back. It is registered with transformers as an attention of its own, which is theirs for any other
call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffpref.likelihood.tokens import IGNORED
from diffpref.models.base import Network

__all__ = ["ATTENTION", "Copies", "Layout", "attach", "gather", "is_attached", "lay_out", "run"]

ATTENTION = "diffpref_rows"
"""The name of the attention among those of transformers."""
KEYWORD = "token_layout"
"""By which a decoder hands the layout down to its attention."""
WORTH = 0.97
"""Share of the tokens of padded rows above which nothing is gained."""


@dataclass(frozen=True)
class Copies:
    """Where rows of a tensor are taken from, so that the way back adds in a fixed order.

    Args:
        index: (M,) row of the source.
        first: (S,) where a row of the source was copied to first; M where nowhere.
        more: (rows of the source, where they were copied to) for second, third, ... copies.
    """

    index: Tensor
    first: Tensor
    more: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, index: NDArray[np.int64], size: int, device: torch.device) -> Copies:
        """Return the copies of an index; negative entries are filled with row 0 and lead nowhere."""
        first = np.full(size, len(index), dtype=np.int64)
        later: list[list[tuple[int, int]]] = []
        seen: dict[int, int] = {}
        for place, source in enumerate(index.tolist()):
            if source < 0:
                continue
            count = seen.get(source, 0)
            seen[source] = count + 1
            if count == 0:
                first[source] = place
            else:
                while len(later) < count:
                    later.append([])
                later[count - 1].append((source, place))
        more = tuple(
            (torch.tensor([s for s, _ in pairs], device=device), torch.tensor([p for _, p in pairs], device=device))
            for pairs in later
        )
        return cls(torch.from_numpy(np.maximum(index, 0)).to(device), torch.from_numpy(first).to(device), more)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, copies: Copies) -> Tensor:
        ctx.copies = copies
        return source.index_select(0, copies.index)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None]:
        copies: Copies = ctx.copies
        there = copies.first < len(above)
        back = above.index_select(0, copies.first.clamp(max=len(above) - 1))
        back = back * there.view(-1, *[1] * (above.dim() - 1)).to(back.dtype)
        for sources, places in copies.more:  # no source twice in one of them, so the order of additions is fixed
            back.index_add_(0, sources, above.index_select(0, places))
        return back, None


def gather(source: Tensor, copies: Copies) -> Tensor:
    """Return rows of ``source`` (S, ...) as (M, ...); where one is used twice, gradients are added in a fixed order."""
    return _Gather.apply(source, copies)


@dataclass(frozen=True)
class Layout:
    """Rows of tokens in a single one.

    Args:
        ids: (1, S) tokens, a shared prompt once.
        positions: (1, S) of each in its own row.
        rows: from the single row to (N * T).
        back: (S,) where in (N * T) the output of a token is.
        shape: (N, T) without padding in front.
        states: from the single row to the states before each predicted token, in the order of
            `diffpref.likelihood.tokens.places`.
        ends: from the single row to the states of the last tokens of rows.
    """

    ids: Tensor
    positions: Tensor
    rows: Copies
    back: Tensor
    shape: tuple[int, int]
    states: Copies
    ends: Copies


def lay_out(ids: Tensor, labels: Tensor, mask: Tensor) -> Layout | None:
    """Return the layout of rows; None where padding and shared prompts are too few to gain anything.

    Args:
        ids: (N, T) tokens.
        labels: (N, T), -100 where nothing is predicted.
        mask: (N, T), 0 at padding on either side.
    """
    device = ids.device
    tokens, told, there = (tensor.cpu().numpy() for tensor in (ids, labels, mask))
    spans = [_span(row) for row in there]
    length = max((end - start for start, end in spans), default=0)
    index = np.full((len(tokens), max(length, 1)), -1, dtype=np.int64)
    flat: list[NDArray[np.int64]] = []
    positions: list[NDArray[np.int64]] = []
    prompts: dict[bytes, int] = {}
    size = 0
    for number, (start, end) in enumerate(spans):
        row, predicted = tokens[number, start:end], told[number, start:end] != IGNORED
        shared = int(predicted.argmax()) if predicted.any() else len(row)
        key, own = row[:shared].tobytes(), 0
        if shared:
            if key not in prompts:
                prompts[key] = size
                flat.append(row[:shared])
                positions.append(np.arange(shared))
                size += shared
            index[number, :shared] = prompts[key] + np.arange(shared)
        own = len(row) - shared
        index[number, shared : len(row)] = size + np.arange(own)
        flat.append(row[shared:])
        positions.append(np.arange(shared, len(row)))
        size += own
    if not size or size > WORTH * tokens.size:
        return None
    rows = Copies.of(index.reshape(-1), size, device)
    row, place = np.nonzero(told[:, 1:] != IGNORED)
    before = index[row, place - np.array([start for start, _ in spans], dtype=np.int64)[row]]
    return Layout(
        ids=torch.from_numpy(np.concatenate(flat)).unsqueeze(0).to(device),
        positions=torch.from_numpy(np.concatenate(positions)).unsqueeze(0).to(device),
        rows=rows,
        back=rows.first,
        shape=(len(tokens), index.shape[1]),
        states=Copies.of(before, size, device),
        ends=Copies.of(index.max(axis=1, initial=-1, where=index >= 0), size, device),
    )


def _span(there: NDArray[np.int64]) -> tuple[int, int]:
    found = np.flatnonzero(there)
    return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attend within rows; without a layout this is transformers' own."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    layout: Layout | None = options.pop(KEYWORD, None)
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    number, length = layout.shape

    def rows(tensor: Tensor) -> Tensor:
        return gather(tensor[0].transpose(0, 1), layout.rows).unflatten(0, (number, length)).transpose(1, 2)

    window = options.pop("sliding_window", None)
    mask = _window(length, window, query.device) if window is not None and window < length else None
    output, _ = sdpa_attention_forward(
        module, rows(query), rows(key), rows(value), mask, **{**options, "is_causal": mask is None}
    )
    return output.flatten(0, 1).index_select(0, layout.back).unsqueeze(0), None


def _window(length: int, window: int, device: torch.device) -> Tensor:
    places = torch.arange(length, device=device)
    behind = places.unsqueeze(1) - places
    return ((behind >= 0) & (behind < window)).view(1, 1, length, length)


def attach(network: Network) -> bool:
    """Let a network run without padding where it can; return whether it does.

    It is tried once on a few tokens: architectures that look at their neighbours outside of attention, or attend in a
    way of their own, run on padded rows.

    Args:
        network: a causal language model of transformers.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    if is_attached(network):
        return True
    config = network.config.get_text_config()
    if getattr(config, "_attn_implementation", None) != "sdpa" or getattr(config, "attn_logit_softcapping", None):
        return False
    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    ids, labels, mask = _trial(network.device)
    with torch.no_grad():
        expected = network.base_model(input_ids=ids, use_cache=False).last_hidden_state
        network.set_attn_implementation(ATTENTION)
        layout = lay_out(ids, labels, mask)
        good = layout is not None and is_attached(network)
        if good and layout is not None:
            try:
                found, _, _ = run(network, layout)
            except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
                good = False  # an architecture that does not hand the layout down, or has other inputs
            else:
                row, place = np.nonzero((labels[:, 1:] != IGNORED).cpu().numpy())
                wanted = expected[torch.from_numpy(row), torch.from_numpy(place)]
                good = bool((found - wanted).abs().max() <= 0.02 * wanted.abs().max().clamp(min=1e-6))
    if not good:
        network.set_attn_implementation("sdpa")
    return good


def _trial(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows of which two share a prompt, and one is shorter."""
    ids = torch.tensor([[3, 4, 5, 6, 7, 8], [3, 4, 9, 8, 0, 0], [5, 6, 7, 0, 0, 0]], device=device)
    mask = (ids > 0).long()
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, :2] = IGNORED
    return ids, labels, mask


def is_attached(network: Network) -> bool:
    """Whether a network runs without padding."""
    return bool(getattr(network.config.get_text_config(), "_attn_implementation", None) == ATTENTION)


def run(network: Network, layout: Layout, layers: bool = False) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return hidden states: (M, D) before each predicted token; where asked those of every layer, (M, L, D); (N, D) of
    the last token of each row."""
    found = network.base_model(
        input_ids=layout.ids,
        position_ids=layout.positions,
        attention_mask=torch.zeros((1, 1, 1, 1), device=layout.ids.device),  # of four dimensions: no mask is made
        use_cache=False,
        **({"output_hidden_states": True} if layers else {}),
        **{KEYWORD: layout},
    )
    states, ends = (gather(found.last_hidden_state[0], copies) for copies in (layout.states, layout.ends))
    if not layers:
        return states, None, ends
    each = [one[0].detach().index_select(0, layout.states.index) for one in found.hidden_states[1:]]
    return states, torch.stack(each, dim=1), ends
