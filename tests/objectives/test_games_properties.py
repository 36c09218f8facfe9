"""The games' objectives on tables of three responses: the released code's numbers, and where the steps lead."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffpref import objectives
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.objectives.general_preference import preference_score

P = torch.tensor([[0.5, 0.7, 0.4], [0.3, 0.5, 0.8], [0.6, 0.2, 0.5]], dtype=torch.float64)
LOGITS = torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64)
REFERENCE = torch.tensor([0.0, 0.3, -0.2], dtype=torch.float64).log_softmax(0)
BETA, RATE = 0.1, 0.5
ANCHORED = [f"{role}{side}_log_ratio" for role in ("", "previous_") for side in ("chosen", "rejected")]


def table(logits: Tensor, opponent: Tensor, matrix: Tensor = P) -> Tensor:
    """Online IPO 1 of a policy that is a table, against an opponent that is one."""
    ratio = (logits.log_softmax(0) - REFERENCE).unsqueeze(0)
    wins = (matrix @ opponent).unsqueeze(0)
    losses = objectives.online_ipo_1_list(list_log_ratio=ratio, list_win_rate=wins, beta=BETA)
    return losses.sum()


def gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[float, Tensor]:
    at = logits.clone().requires_grad_()
    value = loss(at)
    (found,) = torch.autograd.grad(value, at)
    return value.item(), found


def test_nash_md_follows_the_released_gradient_on_a_table() -> None:
    mixture = ((1 - RATE * BETA) * LOGITS.log_softmax(0) + RATE * BETA * REFERENCE).softmax(0)

    def loss(logits: Tensor) -> Tensor:
        logps = logits.log_softmax(0)
        losses = objectives.nash_md(
            policy_logps=logps, log_ratio=logps - REFERENCE, win_rate=P @ mixture, beta=BETA, baseline=0.0
        )
        return (logps.exp().detach() * losses).sum()

    value, found = gradient(loss, LOGITS)
    assert value == pytest.approx(0.54496761, abs=5e-9)
    assert found.tolist() == pytest.approx([-0.0045182, -0.02901385, 0.03353205], abs=5e-9)


def test_an_extragradient_step_gives_the_released_numbers() -> None:
    """A trial step with SGD, the targets against the policy there, and the step from where the trial began."""
    rate = 0.01
    _, first = gradient(lambda logits: table(logits, LOGITS.softmax(0)), LOGITS)
    halfway = LOGITS - rate * first
    value, second = gradient(lambda logits: table(logits, halfway.softmax(0)), LOGITS)
    assert value == pytest.approx(1.29772792, abs=5e-9)
    assert (LOGITS - rate * second).tolist() == pytest.approx([0.19945123, -0.0865801, 0.38712887], abs=5e-9)


@pytest.mark.parametrize("matrix", [P, torch.full_like(P, 0.5)], ids=["a cycle", "no preference"])
def test_the_fixed_point_is_the_equilibrium_of_the_regularised_game(matrix: Tensor) -> None:
    """There h(y) - h(y') = (P(y, pi) - P(y', pi)) / beta; without preferences that is the reference."""
    logits = LOGITS.clone()
    for _ in range(400):
        _, step = gradient(lambda at: table(at, at.detach().softmax(0), matrix), logits)
        logits = logits - 0.1 * step
    policy = logits.log_softmax(0)
    ratio, wins = policy - REFERENCE, matrix @ policy.exp()
    torch.testing.assert_close(ratio - ratio[0], (wins - wins[0]) / BETA, rtol=1e-6, atol=1e-6)
    if bool((matrix == 0.5).all()):
        torch.testing.assert_close(policy, REFERENCE)


def test_nash_md_has_no_gradient_at_an_even_game_on_the_reference() -> None:
    logps = torch.tensor([-3.0], requires_grad=True)
    objectives.nash_md(policy_logps=logps, log_ratio=torch.zeros(1), win_rate=torch.tensor([0.5])).backward()
    assert logps.grad is not None and logps.grad.item() == 0


def test_sppo_is_least_at_its_targets() -> None:
    rates = {"chosen_win_rate": torch.tensor([0.8]), "rejected_win_rate": torch.tensor([0.3])}
    least = objectives.sppo(
        chosen_log_ratio=torch.tensor([3.0]), rejected_log_ratio=torch.tensor([-2.0]), **rates, beta=0.1
    )
    assert least.item() == pytest.approx(0, abs=1e-10)


def test_sppo_pins_what_both_log_ratios_share() -> None:
    chosen, rejected = torch.tensor([1.0]), torch.tensor([-1.0])
    here = objectives.sppo(chosen_log_ratio=chosen, rejected_log_ratio=rejected, beta=0.1)
    there = objectives.sppo(chosen_log_ratio=chosen - 5, rejected_log_ratio=rejected - 5, beta=0.1)
    assert there > here


def test_one_win_rate_without_the_other_is_refused() -> None:
    pair = {"chosen_log_ratio": torch.zeros(1), "rejected_log_ratio": torch.zeros(1)}
    with pytest.raises(ConfigError, match="go together"):
        objectives.sppo(**pair, chosen_win_rate=torch.ones(1))


def test_inpo_refuses_a_reference_stronger_than_the_step() -> None:
    with pytest.raises(ConfigError, match="tau must be at most eta"):
        objectives.inpo_nash(**{name: torch.zeros(1) for name in ANCHORED}, eta=0.1, tau=0.2)


def test_inpo_costs_a_quarter_of_the_inverse_square_where_all_models_agree() -> None:
    loss = objectives.inpo_nash(**{name: torch.zeros(1) for name in ANCHORED}, eta=0.2, tau=0.1)
    assert loss.item() == pytest.approx((1 / (2 * 0.2)) ** 2)


def test_direct_nash_with_certain_labels_is_dpo() -> None:
    """DNO-Prct: what was run at scale, on the golden pair of dno."""
    chosen, rejected = torch.tensor([[0.6], [-0.4]], dtype=torch.float64)
    loss = objectives.dpo(chosen_log_ratio=chosen, rejected_log_ratio=rejected, beta=0.5)
    assert loss.item() == pytest.approx(0.474076984, abs=5e-10)


def test_a_preference_score_is_antisymmetric_and_turns_with_its_blocks() -> None:
    one, other = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    score = preference_score(one, other)
    torch.testing.assert_close(preference_score(other, one), -score)
    assert not preference_score(one, one).any()
    cos, sin = math.cos(0.7), math.sin(0.7)
    turn = torch.block_diag(*[torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)] * 3)
    torch.testing.assert_close(preference_score(one @ turn.T, other @ turn.T), score)
    with pytest.raises(ShapeError, match="even number of features, got 3"):
        preference_score(torch.ones(1, 3), torch.ones(1, 3))


def test_a_preference_score_holds_a_cycle_of_three() -> None:
    angles = torch.arange(3, dtype=torch.float64) * 2 * math.pi / 3
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    scores = preference_score(embeddings.unsqueeze(1), embeddings.unsqueeze(0))
    assert scores[0, 1] > 0.8 and scores[1, 2] > 0.8 and scores[2, 0] > 0.8


def test_the_released_mean_probabilities_of_preference_embeddings() -> None:
    chosen = torch.tensor([[0.6, 0.8], [0.1, -0.3]], dtype=torch.float64)
    rejected = torch.tensor([[-0.2, 0.5], [0.4, 0.2]], dtype=torch.float64)
    probability = torch.sigmoid(preference_score(chosen, rejected) / 0.1).mean()
    assert probability.item() == pytest.approx(0.89611604, abs=5e-9)
    chosen = torch.tensor([[0.6, 0.8, 0.1, -0.2]], dtype=torch.float64)
    rejected = torch.tensor([[-0.2, 0.5, 0.3, 0.4]], dtype=torch.float64)
    assert torch.sigmoid(preference_score(chosen, rejected) / 0.1).item() == pytest.approx(0.99631576, abs=5e-9)
