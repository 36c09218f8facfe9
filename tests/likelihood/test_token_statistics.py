"""The sums of token-level DPO over tokens, against the official code's."""

from __future__ import annotations

import pytest
import torch

from diffpref.likelihood.head import Head, read_tokens
from diffpref.likelihood.tokens import places


def test_sums_are_those_of_the_released_token_level_dpo() -> None:
    """tdpo's ``_tdpo_get_batch_logps`` on logits of four places over three words; labels are shifted by one."""
    policy = torch.tensor([[[0, 0, 0], [1, 0, -1], [0.5, 0.5, 0], [0, 0, 0]]], dtype=torch.float64)
    reference = torch.tensor([[[0.2, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]], dtype=torch.float64)
    labels = torch.tensor([[-100, 0, 1, 2]])
    row, place, _ = places(labels)
    head = Head(torch.eye(3, dtype=torch.float64))
    found = read_tokens(policy[row, place], head, labels[row, place + 1], (reference[row, place], head))
    assert found["logps"].sum().item() == pytest.approx(-3.96423834, abs=5e-9)
    assert (found["logps"] - found["other_logps"]).sum().item() == pytest.approx(-0.34436443, abs=5e-9)
    assert found["kl"].sum().item() == pytest.approx(0.40228259, abs=5e-9)
    assert bool((found["kl"] >= 0).all())
