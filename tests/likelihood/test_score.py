"""The likelihood of reward models gathers what they say, and lets gradient into what is trained alone."""

from __future__ import annotations

import pytest
import torch

from diffpref.core.contracts import Conditioning, Rows
from diffpref.core.errors import ConfigError
from diffpref.likelihood import ScoreLikelihood


def rows(**groups: list[int] | list[list[int]]) -> Rows:
    return Rows("score", {}, Conditioning({}), {name: torch.tensor(index) for name, index in groups.items()})


def test_it_gathers_pairs_lists_and_several_numbers() -> None:
    said = {"score": torch.arange(4.0), "scores": torch.arange(8.0).view(4, 2)}
    asked = ["policy_chosen_score", "policy_list_score", "policy_rejected_scores"]
    found = ScoreLikelihood()(asked, {"policy": said}, rows(chosen=[0, 1], rejected=[2, 3], list=[[0, 3], [2, -1]]))
    assert found["policy_chosen_score"].tolist() == [0.0, 1.0]
    assert found["policy_list_score"].tolist() == [[0.0, 3.0], [2.0, 0.0]]
    assert found["policy_rejected_scores"].tolist() == [[4.0, 5.0], [6.0, 7.0]]


def test_gradient_flows_into_the_policy_alone_and_not_into_what_is_absent() -> None:
    said = {role: {"score": torch.ones(3, requires_grad=True)} for role in ("policy", "reference")}
    names = ["policy_list_score", "reference_list_score"]
    found = ScoreLikelihood()(names, said, rows(list=[[0, 2], [1, -1]]))
    (found["policy_list_score"] * 2).sum().backward()
    assert said["policy"]["score"].grad is not None and said["policy"]["score"].grad.tolist() == [2.0, 2.0, 2.0]
    assert not found["reference_list_score"].requires_grad


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("policy_chosen_logps", "does not provide"),
        ("peer_chosen_score", "does not provide"),
        ("policy_gold_score", "needs group 'gold'"),
        ("policy_chosen_log_std", "says only score"),
    ],
)
def test_what_is_not_there_is_named(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ScoreLikelihood()([name], {"policy": {"score": torch.ones(2)}}, rows(chosen=[0], rejected=[1]))
