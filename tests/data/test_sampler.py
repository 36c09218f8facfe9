"""The order of records."""

from __future__ import annotations

import pytest

from diffpref.core.errors import DataError
from diffpref.data import KeyedSampler


def test_each_visit_sees_every_item_once_in_another_order():
    sampler = KeyedSampler(20, seed=3)
    first, second = ([sampler[v * 20 + p] for p in range(20)] for v in (0, 1))
    assert sorted(first) == [(i, 0) for i in range(20)]
    assert sorted(second) == [(i, 1) for i in range(20)]
    assert [i for i, _ in first] != [i for i, _ in second]


def test_seeking_gives_what_walking_gives():
    walked = [KeyedSampler(7, seed=1).batch(step, 3) for step in range(10)]
    assert KeyedSampler(7, seed=1).batch(8, 3) == walked[8]


def test_processes_share_a_step_without_changing_it():
    sampler = KeyedSampler(10, seed=0)
    parts = [sampler.batch(4, 8, rank=rank, num_ranks=4) for rank in range(4)]
    assert [item for part in parts for item in part] == sampler.batch(4, 8)


def test_the_batch_size_does_not_change_the_order():
    sampler = KeyedSampler(10, seed=0)
    assert [item for step in range(4) for item in sampler.batch(step, 2)] == sampler.batch(0, 8)


def test_seeds_differ():
    assert KeyedSampler(50, seed=0).batch(0, 50) != KeyedSampler(50, seed=1).batch(0, 50)


def test_fewer_records_than_a_batch_says_what_to_change():
    with pytest.raises(DataError, match=r"3 pairs are fewer than the 4 of one step; lower the batch size"):
        KeyedSampler(3, seed=0).batch(0, 4)
    with pytest.raises(DataError, match="no records"):
        KeyedSampler(0, seed=0)
