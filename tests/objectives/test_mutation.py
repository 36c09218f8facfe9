"""The mutation check itself: what it breaks, and that it sees when nobody notices."""

from __future__ import annotations

from types import FunctionType

import mutation
import pytest
from mutants import mutants_of, swapped_in

from diffpref.objectives import registry


def plain(name: str) -> FunctionType:
    function = registry.get(name).spec.function
    assert isinstance(function, FunctionType)
    return function


def test_it_flips_signs_drops_factors_swaps_sides_and_cuts_gradients() -> None:
    changes = {mutant.change for mutant in mutants_of(plain("dpo"))}
    assert "chosen_log_ratio - rejected_log_ratio -> chosen_log_ratio + rejected_log_ratio" in changes
    assert "beta * (chosen_log_ratio - rejected_log_ratio) -> beta" in changes
    assert "chosen_log_ratio -> rejected_log_ratio" in changes
    assert any(".detach()" in change for change in changes)


def test_a_mutant_takes_the_place_of_its_function_and_leaves_again() -> None:
    function = plain("dpo")
    mutant = next(mutants_of(function))
    original = function.__code__
    with swapped_in(function, mutant):
        assert function.__code__ is mutant.code
    assert function.__code__ is original


@pytest.mark.parametrize("name", ["dpo", "ipo", "nll"])
def test_every_mutant_is_killed(name: str) -> None:
    function = plain(name)
    assert [str(m) for m in mutants_of(function) if mutation.survives(function, [name], m)] == []


def test_without_checks_every_mutant_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutation, "CHECKS", {})
    function = plain("nll")
    assert all(mutation.survives(function, ["nll"], mutant) for mutant in mutants_of(function))
