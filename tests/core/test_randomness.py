"""Randomness is a function of keys: stable over time, independent of order, normal where it says so."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpref.core.randomness import Random, hash_key

keys = st.lists(st.one_of(st.integers(0, 2**31), st.text(max_size=5)), min_size=1, max_size=4)
fast = settings(max_examples=60, deadline=None, derandomize=True)


def test_draws_are_the_same_numbers_for_ever() -> None:
    assert hash_key(0, "noise", "a", 1) == 7086453194898549472
    assert Random(0).normal("noise", [("a", 1)], (3,))[0].tolist() == pytest.approx(
        [-0.25200477, -1.20008457, 0.21899213], abs=1e-7
    )
    assert Random(0).uniform("t", [("a", 1)]).tolist() == pytest.approx([0.5750519009436151], abs=1e-12)
    assert Random(0).permutation(5, "order", 2).tolist() == [0, 2, 1, 4, 3]
    assert Random(0).numpy("order", 2).integers(100, size=3).tolist() == [23, 39, 51]


@fast
@given(keys, keys)
def test_different_keys_have_different_hashes(first: list[int | str], second: list[int | str]) -> None:
    assert (hash_key(*first) == hash_key(*second)) == (first == second)
    assert 0 <= hash_key(*first) < 2**63


def test_text_and_numbers_and_boundaries_are_told_apart() -> None:
    assert len({hash_key(1), hash_key("1"), hash_key("a", "bc"), hash_key("ab", "c"), hash_key("abc")}) == 5


def test_a_key_part_that_is_not_stable_is_refused() -> None:
    with pytest.raises(TypeError, match="int or a str, got float"):
        hash_key(0.5)  # type: ignore[arg-type]


@fast
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6), st.integers(0, 2**31))
def test_a_record_draws_the_same_whatever_is_in_its_batch(records: list[int], seed: int) -> None:
    batch = Random(seed).normal("noise", [(r, 0) for r in records], (2, 2))
    for row, record in zip(batch, records, strict=True):
        assert torch.equal(row, Random(seed).normal("noise", [(record, 0)], (2, 2))[0])


def test_streams_visits_and_seeds_differ() -> None:
    draws = [
        Random(seed).normal(stream, [("r", visit)], (4,))
        for seed, stream, visit in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1))
    ]
    assert all(not torch.equal(draws[i], draws[j]) for i in range(4) for j in range(i))


def test_noise_is_standard_normal_across_records_and_uniform_is_uniform() -> None:
    ids = [(record, 0) for record in range(2000)]
    noise, uniform = Random(0).normal("noise", ids, (8,)), Random(0).uniform("t", ids)
    assert noise.dtype == torch.float32 and uniform.dtype == torch.float64
    assert abs(noise.mean()) < 0.03 and abs(noise.var() - 1) < 0.04
    assert abs(torch.corrcoef(noise.T) - torch.eye(8)).max() < 0.1
    assert 0 <= uniform.min() and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.02


def test_drawing_leaves_the_global_generators_alone() -> None:
    state = torch.get_rng_state()
    Random(0).normal("noise", [(1, 0)], (3,))
    Random(0).permutation(4, "order")
    assert torch.equal(state, torch.get_rng_state())
