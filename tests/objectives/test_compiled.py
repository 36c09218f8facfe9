"""Compiled objectives give what plain ones give: losses and gradients."""

from __future__ import annotations

import pytest
import torch
from objective_cases import options_of, situations, tensors_of

from diffpref.core.contracts import Terms
from diffpref.objectives import registry

REAL = ("dpo", "exo_pair", "f_dpo", "ipo", "kto", "lipo_lambda", "nca_pair", "orpo", "simpo", "tdpo2")
"""Compiled by the real compiler in the slow suite: one of each kind of formula."""


def check_compiled(name: str, backend: str) -> None:
    spec = registry.get(name).spec
    optional, options = next(situations(spec))
    values, state = options_of(spec, options).model_dump(), {} if spec.init is None else {"state": spec.init()}
    results = []
    for function in (spec.function, torch.compile(spec.function, backend=backend)):
        tensors = tensors_of(spec, optional=optional)
        for key in spec.trained:
            tensors[key].requires_grad_()
        value = function(**tensors, **values, **state)
        losses = value.losses if isinstance(value, Terms) else value
        losses.sum().backward()
        results.append((losses.detach(), [tensors[key].grad for key in spec.trained]))
    (plain, gradients), (compiled, others) = results
    torch.testing.assert_close(compiled, plain, rtol=1e-10, atol=1e-10)
    for one, other in zip(gradients, others, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", registry.names())
def test_compiled_equals_eager(name: str) -> None:
    torch._dynamo.reset()
    check_compiled(name, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_real_compiler_equals_eager(name: str) -> None:
    torch._dynamo.reset()
    check_compiled(name, "inductor")
