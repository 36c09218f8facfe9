"""Hyper-parameter annotations: what they let pass and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError

from diffpref.core.annotations import (
    HalfProbability,
    NonNegative,
    NonNegativeInt,
    Number,
    Positive,
    PositiveInt,
    Probability,
    resolve,
    scale,
)


@pytest.mark.parametrize(
    ("annotation", "given", "expected"),
    [
        (Positive, "1e-5", 1e-5),
        (Positive, 3, 3.0),
        (NonNegative, 0, 0.0),
        (Probability, 1, 1.0),
        (HalfProbability, 0.49, 0.49),
        (Number, -2.5, -2.5),
        (PositiveInt, 4, 4),
        (NonNegativeInt, 0, 0),
    ],
)
def test_values_in_range_pass(annotation: Any, given: Any, expected: Any) -> None:
    value = TypeAdapter(annotation, config=ConfigDict(strict=True)).validate_python(given)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "given"),
    [
        (Positive, 0),
        (Positive, "one"),
        (Positive, "nan"),
        (Positive, True),
        (Number, float("inf")),
        (NonNegative, -1e-9),
        (Probability, 1.1),
        (HalfProbability, 0.5),
        (PositiveInt, 0),
        (PositiveInt, True),
        (PositiveInt, 2.0),
        (NonNegativeInt, -1),
    ],
)
def test_values_out_of_range_or_of_another_type_are_refused(annotation: Any, given: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(annotation, config=ConfigDict(strict=True)).validate_python(given)


def test_a_scaled_default_depends_on_the_likelihood_and_a_plain_one_does_not() -> None:
    beta = scale(tokens=0.1, denoising=5000)
    assert resolve(beta, "denoising") == 5000
    assert resolve(beta, "tokens") == resolve(beta, "steps") == resolve(beta, "score") == 0.1
    assert resolve(3, "denoising") == 3
