"""The Jensen-Shannon divergence of answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffpref.core.errors import ShapeError
from diffpref.likelihood import Head, answer_divergence, jensen_shannon
from diffpref.likelihood.tokens import head_tensors


def reference(p: np.ndarray, q: np.ndarray) -> float:
    m = (p + q) / 2
    return 0.5 * sum(float(np.sum(one * np.log(one / m))) for one in (p, q))


def test_it_is_that_of_an_independent_computation() -> None:
    p, q = np.random.default_rng(0).dirichlet(np.ones(7), size=2)
    found = jensen_shannon(torch.tensor(p).log(), torch.tensor(q).log()).item()
    assert found == pytest.approx(reference(p, q), rel=1e-12)
    assert found == pytest.approx(jensen_shannon(torch.tensor(q).log(), torch.tensor(p).log()).item(), rel=1e-12)


def test_it_lies_between_0_and_ln_2() -> None:
    one, other = torch.tensor([1.0, 0.0]).log(), torch.tensor([0.0, 1.0]).log()
    assert jensen_shannon(one, one).item() == 0.0
    assert jensen_shannon(one, other).item() == pytest.approx(math.log(2))


def test_the_divergence_of_answers_is_the_mean_over_their_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    head = Head(torch.randn(11, 4, generator=generator))
    labels = torch.tensor([[-100, 3, 5, -100], [-100, -100, 2, -100]])
    one, other = (torch.randn(3, 4, generator=generator) for _ in range(2))
    told = [{"states": states, **head_tensors(head)} for states in (one, other)]
    each = [
        reference(p.double().numpy(), q.double().numpy())
        for p, q in zip((one @ head.weight.T).softmax(-1), (other @ head.weight.T).softmax(-1), strict=True)
    ]
    expected = [(each[0] + each[1]) / 2, each[2]]
    for size in (1, 2**20):  # one token at a time, or all
        assert answer_divergence(*told, labels, size).tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ShapeError, match="not of the same tokens"):
        answer_divergence(told[0], {**told[1], "states": other[:2]}, labels)
