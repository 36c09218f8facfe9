"""Tokens without padding, prompts once: the answers and the gradients of padded rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffpref.core.contracts import Conditioning, Rows
from diffpref.models.attention import set_attention
from diffpref.models.families.causal_lm import CausalLM, Completions
from diffpref.models.packing import Copies, gather, is_attached, lay_out

TEXTS = (  # prompt, completion
    ("why? ", "because of this"),
    ("why? ", "no"),
    ("where is the dog? ", "there"),
    ("where is the dog? ", "under the table"),
    ("where is the dog? ", "gone"),
    ("", "alone"),
)


def rows(family: CausalLM, side: str = "right", absent: bool = False) -> Rows:
    encoded = [(family.tokenizer(p)["input_ids"] or [1], family.tokenizer(c)["input_ids"]) for p, c in TEXTS]
    length = max(len(p) + len(c) for p, c in encoded) + 3
    ids = torch.zeros(len(encoded) + absent, length, dtype=torch.int64)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for number, (prompt, completion) in enumerate(encoded):
        start = 0 if side == "right" else length - len(prompt) - len(completion)
        end = start + len(prompt) + len(completion)
        ids[number, start:end] = torch.tensor([*prompt, *completion])
        labels[number, start + len(prompt) : end] = torch.tensor(completion)
        mask[number, start:end] = 1
    told = Conditioning({"attention_mask": mask})
    return Rows("tokens", {"ids": ids, "labels": labels}, told, {"": torch.arange(len(ids))})


def answers(family: CausalLM, asked: Rows) -> tuple[Tensor, list[Tensor]]:
    family.network.zero_grad()
    found = family.answer(family.network, asked)["token_logps"]
    (found.sum(dim=1) * torch.linspace(-1, 2, len(found))).sum().backward()
    return found.detach(), [p.grad.clone() for p in family.network.parameters()]


def whole_softmax(family: CausalLM, asked: Rows) -> Tensor:
    """The sum of log-probabilities of each completion, row by row from the model's own logits."""
    sums = []
    for ids, labels, mask in zip(
        asked.inputs["ids"], asked.inputs["labels"], asked.conditioning.tensors["attention_mask"], strict=True
    ):
        there = mask > 0
        if not there.any():
            sums.append(torch.zeros(()))
            continue
        said = family.network(input_ids=ids[there].unsqueeze(0)).logits[0].log_softmax(-1)
        told = labels[there][1:]
        sums.append(said[:-1][told >= 0].gather(1, told[told >= 0].unsqueeze(1)).sum())
    return torch.stack(sums)


def family_of(kind: str) -> CausalLM:
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    family = CausalLM.tiny()
    if kind != "llama":
        torch.manual_seed(0)
        common: dict[str, Any] = {"vocab_size": len(family.tokenizer), "pad_token_id": 0, "eos_token_id": 2}
        shape = {
            "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
            "cohere": {"num_key_value_heads": 2, "logit_scale": 0.3},
            "granite": {"num_key_value_heads": 2, "logits_scaling": 3.0},
            "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 1.5, "sliding_window": 4},
            "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4},
            "phi": {"partial_rotary_factor": 0.5},
            "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
        }[kind]
        if kind not in ("gpt2", "bloom"):
            common |= {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}
            common |= {"num_attention_heads": 2, "max_position_embeddings": 64}
        config = CONFIG_MAPPING[kind](**common, **shape)
        family.network = AutoModelForCausalLM.from_config(config).eval()
    return family


KINDS = {
    "llama": True,
    "gpt2": True,
    "cohere": True,
    "granite": True,
    "phi": True,
    "gemma3_text": True,
    "gemma2": False,  # attends with a soft cap of its own
    "bloom": False,  # tells places by what it adds to attention
}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_decoder_says_what_its_own_logits_say(kind: str, side: str) -> None:
    family = family_of(kind)
    family.network.requires_grad_(True)
    asked = rows(family, side, absent=True)
    plain, plain_gradients = answers(family, asked)
    set_attention(family.network, "auto")
    assert is_attached(family.network) == KINDS[kind]
    packed, gradients = answers(family, asked)
    with torch.no_grad():
        expected = whole_softmax(family, asked)
    torch.testing.assert_close(plain.sum(dim=1), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5)
    for one, two in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4 * max(1.0, float(two.abs().max())))


def test_a_shared_prompt_is_computed_once() -> None:
    family = CausalLM.tiny()
    set_attention(family.network, "auto")
    seen: list[int] = []
    family.blocks(family.network)[0].mlp.register_forward_hook(lambda m, given, out: seen.append(out[..., 0].numel()))
    asked = rows(family)
    family.answer(family.network, asked)
    prompts = {prompt: max(1, len(prompt)) for prompt, _ in TEXTS}
    assert seen == [sum(prompts.values()) + sum(len(completion) for _, completion in TEXTS)]
    family.even = True
    family.answer(family.network, asked)
    assert seen[1] == asked.inputs["ids"].numel()


def test_generation_and_padded_calls_stay_the_librarys_own() -> None:
    family, other = CausalLM.tiny(), CausalLM.tiny()
    set_attention(family.network, "auto")
    ids = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    mask = (ids > 0).long()
    options = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False}
    assert torch.equal(family.network.generate(ids, **options), other.network.generate(ids, **options))


def test_full_rows_are_not_laid_out_anew() -> None:
    ids = torch.arange(3, 15).view(2, 6)
    labels = ids.clone()
    labels[:, :2] = -100
    assert lay_out(ids, labels, torch.ones_like(ids)) is None
    assert lay_out(ids, labels, torch.zeros_like(ids)) is None


def test_what_is_wrapped_is_asked_through_its_forward() -> None:
    family = CausalLM.tiny()
    wrapped = family.asked(family.network)
    assert isinstance(wrapped, Completions)
    asked = rows(family)
    first, second = family.answer(wrapped, asked), family.answer(family.network, asked)
    assert torch.equal(first["token_logps"], second["token_logps"])


def test_gradients_of_copies_are_added() -> None:
    source = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    copies = Copies.of(np.array([2, 0, 2, -1, 2, 0]), 4, torch.device("cpu"))
    assert torch.autograd.gradcheck(lambda s: gather(s, copies)[[0, 1, 2, 4, 5]], (source,))
    taken = gather(source, copies)
    assert torch.equal(taken[[0, 2, 4]], source[[2, 2, 2]])
    (taken * torch.tensor([1.0, 2, 4, 0, 8, 16]).unsqueeze(1)).sum().backward()
    assert source.grad is not None and source.grad[:, 0].tolist() == [18.0, 0.0, 13.0, 0.0]
