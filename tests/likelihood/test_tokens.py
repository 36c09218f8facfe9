"""The likelihood of tokens: sums, parts, joint quantities, groups, absent rows, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.core.contracts import Conditioning, Rows
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.likelihood import Head, TokenLikelihood
from diffpref.likelihood.tokens import places, read_role, spread

LABELS = torch.tensor([[-100, -100, 5, 6, 7, -100], [-100, 3, 4, -100, -100, -100], [-100] * 6])
WORDS, WIDTH = 9, 4


def rows(**changes: Any) -> Rows:
    groups = {"chosen": torch.tensor([0]), "rejected": torch.tensor([1]), "list": torch.tensor([[0, 1, -1]])}
    given: dict[str, Any] = {"inputs": {"ids": LABELS.clamp(min=0), "labels": LABELS}, "groups": groups, **changes}
    return Rows(likelihood="tokens", conditioning=Conditioning({"attention_mask": (LABELS >= 0).long()}), **given)


def model(seed: int) -> tuple[Tensor, Head]:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(5, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
    return states, Head(torch.randn(WORDS, WIDTH, generator=generator, dtype=torch.float64))


def plainly(states: Tensor, head: Head) -> Tensor:
    """(5, WORDS) log-probabilities at the five predicted tokens."""
    return (states @ head.weight.T).log_softmax(-1)


TOKENS = torch.tensor([5, 6, 7, 3, 4])


def test_places_are_those_before_each_token() -> None:
    row, place, number = places(LABELS)
    assert row.tolist() == [0, 0, 0, 1, 1] and place.tolist() == [1, 2, 3, 0, 1] and number.tolist() == [0, 1, 2, 0, 1]
    assert spread(torch.arange(1.0, 6.0), LABELS).tolist() == [[1, 2, 3, 0, 0, 0], [4, 5, 0, 0, 0, 0], [0] * 6]


@pytest.mark.parametrize("wanted", [frozenset(), frozenset({"kl"})], ids=["numbers", "states"])
def test_sums_and_parts_are_those_of_the_whole_softmax(wanted: frozenset[str]) -> None:
    policy, reference = model(0), model(1)
    outputs = {"policy": read_role(*policy, LABELS, wanted), "reference": read_role(*reference, LABELS, wanted)}
    said, theirs = plainly(*policy), plainly(*reference)
    own = said.gather(1, TOKENS[:, None])[:, 0]
    ratio = own - theirs.gather(1, TOKENS[:, None])[:, 0]
    names = ["policy_chosen_logps", "rejected_log_ratio", "chosen_token_log_ratio", "list_log_ratio"]
    found = TokenLikelihood()(names, outputs, rows())
    expected = [own[:3].sum().view(1), ratio[3:].sum().view(1)]
    expected += [torch.cat([ratio[:3], ratio.new_zeros(3)]).view(1, 6)]
    expected += [torch.stack([ratio[:3].sum(), ratio[3:].sum(), ratio.new_zeros(())]).view(1, 3)]
    for name, value in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)
    gradients = torch.autograd.grad(found["rejected_log_ratio"].sum(), [policy[0], reference[0]], allow_unused=True)
    assert gradients[0] is not None and gradients[1] is None


def test_joint_quantities_and_gradients() -> None:
    policy, reference = model(0), model(1)
    wanted = frozenset({"kl"})
    outputs = {"policy": read_role(*policy, LABELS, wanted), "reference": read_role(*reference, LABELS, wanted)}
    names = ["chosen_kl", "rejected_token_kl", "policy_chosen_token_collision", "reference_chosen_logps"]
    found = TokenLikelihood()(names, outputs, rows())
    said, theirs = plainly(*policy), plainly(*reference).detach()
    kl = (theirs.exp() * (theirs - said)).sum(-1)
    torch.testing.assert_close(found["chosen_kl"], kl[:3].sum().view(1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found["rejected_token_kl"][0, :2], kl[3:], rtol=1e-9, atol=1e-9)
    collision = said.exp().square().sum(-1).log()
    torch.testing.assert_close(found["policy_chosen_token_collision"][0, :3], collision[:3], rtol=1e-9, atol=1e-9)
    assert not found["reference_chosen_logps"].requires_grad
    ours = torch.autograd.grad(found["chosen_kl"].sum(), policy[0])[0]
    torch.testing.assert_close(ours, torch.autograd.grad(kl[:3].sum(), policy[0])[0], rtol=1e-9, atol=1e-9)


def test_lengths_and_masks_are_read_off_the_rows() -> None:
    outputs = {"policy": read_role(*model(0), LABELS)}
    names = ["chosen_length", "rejected_token_mask", "list_length"]
    found = TokenLikelihood()(names, outputs, rows())
    assert found["chosen_length"].tolist() == [3.0] and found["list_length"].tolist() == [[3.0, 2.0, 0.0]]
    assert found["rejected_token_mask"].tolist() == [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]


def test_raw_sums_stand_for_an_answer() -> None:
    likelihood, policy, reference = TokenLikelihood(), read_role(*model(0), LABELS), read_role(*model(1), LABELS)
    raw = likelihood.raw(reference, rows())
    assert set(raw) == set(likelihood.raw_names) and raw["logps"].shape == (3,)
    names = ["chosen_log_ratio", "rejected_log_ratio"]
    live = likelihood(names, {"policy": policy, "reference": reference}, rows())
    banked = likelihood(names, {"policy": policy, "reference": raw}, rows())
    assert all(torch.equal(live[name], banked[name]) for name in names)
    states = read_role(*model(1), LABELS, frozenset({"kl"}))
    torch.testing.assert_close(likelihood.raw(states, rows())["logps"], raw["logps"])
    with pytest.raises(ConfigError, match="is of single tokens, and a role's answers are sums"):
        likelihood(["chosen_token_log_ratio"], {"policy": policy, "reference": raw}, rows())


def test_groups_without_gradient_get_none() -> None:
    outputs = {"policy": read_role(*model(0), LABELS)}
    names = ["policy_chosen_logps", "policy_rejected_logps"]
    found = TokenLikelihood()(names, outputs, rows(no_grad=frozenset({"rejected"})))
    assert found["policy_chosen_logps"].requires_grad and not found["policy_rejected_logps"].requires_grad


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("policy_chosen_errors", "does not provide 'policy_chosen_errors'"),
        ("policy_chosen_value", "does not provide"),
        ("policy_chosen_segment_logps", "does not provide"),
        ("policy_gold_logps", "needs group 'gold'; the method prepared chosen, rejected, list"),
        ("peer_chosen_logps", "needs role 'peer', which did not run"),
    ],
)
def test_what_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TokenLikelihood()([name], {"policy": read_role(*model(0), LABELS)}, rows())


def test_answers_that_do_not_fit_are_named() -> None:
    with pytest.raises(ShapeError, match=r"token_logps of 'policy' is \(2, 6\), expected \(3, 6\)"):
        TokenLikelihood()(["policy_chosen_logps"], {"policy": {"token_logps": torch.zeros(2, 6)}}, rows())
