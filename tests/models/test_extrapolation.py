"""Extrapolated weights: exact for networks and, through products, for LoRAs."""

from __future__ import annotations

import pytest
import torch

from diffpref.core.errors import ShapeError
from diffpref.models.extrapolation import cut_lora, extrapolate, extrapolate_lora


def _lora(rank: int, seed: int, out: int = 5, into: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a.to_q.lora_A.weight": torch.randn(rank, into, generator=generator),
        "a.to_q.lora_B.weight": torch.randn(out, rank, generator=generator),
        "b.conv.lora_A.weight": torch.randn(rank, 3, 2, 2, generator=generator),
        "b.conv.lora_B.weight": torch.randn(4, rank, 1, 1, generator=generator),
    }


def _products(state: dict[str, torch.Tensor], scale: float = 1.0) -> dict[str, torch.Tensor]:
    return {
        layer: scale * state[f"{layer}.lora_B.weight"].flatten(1) @ state[f"{layer}.lora_A.weight"].flatten(1)
        for layer in ("a.to_q", "b.conv")
    }


def test_the_golden_of_the_specification():
    found = extrapolate({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.5, 1.0])}, 0.3)
    assert found["w"].tolist() == pytest.approx([1.15, 2.3], abs=1e-6)


def test_counters_are_not_extrapolated_and_nothing_is_at_amount_zero():
    newer, older = {"w": torch.tensor([1.0]), "n": torch.tensor(3)}, {"w": torch.tensor([9.0]), "n": torch.tensor(1)}
    assert extrapolate(newer, older, 0.5)["n"].item() == 3
    assert extrapolate(newer, older, 0.0)["w"].equal(newer["w"])


def test_a_lora_is_extrapolated_through_its_product_whatever_the_ranks_and_scales():
    newer, older = _lora(3, 0), _lora(2, 1)
    found = extrapolate_lora(newer, older, 0.3, scales=(0.5, 2.0))
    for layer, product in _products(found).items():
        expected = 1.3 * _products(newer, 0.5)[layer] - 0.3 * _products(older, 2.0)[layer]
        torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-5)
    assert found["a.to_q.lora_A.weight"].shape[0] == 5  # the ranks together
    factors = {name: newer[name] + 0.3 * (newer[name] - _lora(3, 1)[name]) for name in newer}
    assert not torch.allclose(
        _products(factors)["a.to_q"], _products(extrapolate_lora(newer, _lora(3, 1), 0.3))["a.to_q"]
    )


def test_a_product_of_low_rank_survives_the_cut_and_a_higher_one_gets_the_nearest():
    state = _lora(4, 2)
    same = cut_lora(state, 6)
    assert same["b.conv.lora_A.weight"].shape == (6, 3, 2, 2) and same["b.conv.lora_B.weight"].shape == (4, 6, 1, 1)
    for layer, product in _products(same).items():
        torch.testing.assert_close(product, _products(state)[layer], rtol=1e-4, atol=1e-5)
    product = _products(state)["a.to_q"]
    cut = _products(cut_lora(state, 2))["a.to_q"]
    rest = torch.linalg.svdvals(product.double())[2:]
    assert torch.linalg.norm((product - cut).double()).item() == pytest.approx(rest.norm().item(), rel=1e-5)


def test_states_of_other_models_are_refused():
    with pytest.raises(ShapeError, match="other models"):
        extrapolate({"w": torch.zeros(2)}, {"v": torch.zeros(2)}, 0.1)
    with pytest.raises(ShapeError, match="shapes differ"):
        extrapolate({"w": torch.zeros(2)}, {"w": torch.zeros(3)}, 0.1)
    older = {name: tensor for name, tensor in _lora(2, 0).items() if name.startswith("a.")}
    with pytest.raises(ShapeError, match=r"b\.conv"):
        extrapolate_lora(_lora(2, 0), older, 0.1)
    with pytest.raises(ShapeError, match="lora_magnitude"):
        extrapolate_lora({**_lora(2, 0), "a.lora_magnitude": torch.zeros(1)}, _lora(2, 0), 0.1)
