"""Close first, then far: which altered copy becomes the negative."""

from __future__ import annotations

import pytest
import torch

from diffpref.core.errors import ShapeError
from diffpref.ranking import close_then_far

RELEVANCE = torch.tensor([[0.9, 0.8, 0.1, 0.7]])
DIVERGENCE = torch.tensor([[0.1, 0.3, 0.6, 0.4]])


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({}, 2),  # all are close: the largest divergence
        ({"top_fraction": 0.75}, 3),
        ({"top_fraction": 0.5}, 1),
        ({"top_fraction": 0.01}, 0),  # at least one, the closest
        ({"relevance_threshold": 0.75}, 1),
        ({"relevance_threshold": 0.95}, 0),  # none is close: the closest
        ({"relevance_threshold": 0.05, "top_fraction": 1.0}, 2),
    ],
)
def test_the_most_divergent_of_the_close_copies_is_taken(options: dict[str, float], taken: int) -> None:
    assert close_then_far(RELEVANCE, DIVERGENCE, **options).tolist() == [taken]


def test_records_are_chosen_for_by_themselves_and_ties_go_to_the_first() -> None:
    relevance, divergence = RELEVANCE.repeat(2, 1), torch.stack([DIVERGENCE[0], DIVERGENCE[0].flip(0)])
    assert close_then_far(relevance, divergence, top_fraction=0.5).tolist() == [1, 1]
    assert close_then_far(torch.ones(1, 3), torch.ones(1, 3), top_fraction=0.5).tolist() == [0]


def test_shapes_that_do_not_fit_are_told() -> None:
    with pytest.raises(ShapeError, match=r"must be \(records, copies\)"):
        close_then_far(RELEVANCE, DIVERGENCE[:, :2])
