"""What every objective promises, whatever its formula: parametrised over the registry."""

from __future__ import annotations

import doctest
import importlib
import math
from typing import Any

import pytest
import torch
from objective_cases import GOLDEN, B, golden_cases, losses_of, options_of, situations, tensors_of, variants
from objective_checks import CHECKS
from torch import Tensor

from diffpref import objectives
from diffpref.core.annotations import resolve
from diffpref.core.contracts import Terms
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.core.vocabulary import parse
from diffpref.objectives import registry
from diffpref.objectives.compose import reduce_sums

NAMES = registry.names()
every = pytest.mark.parametrize("name", NAMES)
SITUATIONS = [
    pytest.param(name, optional, options, id=f"{name}{' with columns' if optional else ''} {options or ''}".strip())
    for name in NAMES
    for optional, options in situations(registry.get(name).spec)
]
in_all_situations = pytest.mark.parametrize(("name", "optional", "options"), SITUATIONS)
APART = [
    case
    for case in SITUATIONS
    for spec in [registry.get(case.values[0]).spec]
    if spec.coupling_of(options_of(spec, case.values[2])) is None
]
LISTED = [
    case
    for case in SITUATIONS
    if any(parse(key).group == "list" or key == "ranks" for key in registry.get(case.values[0]).spec.tensors)
]
FREE = [
    case
    for case in SITUATIONS
    if set(registry.get(case.values[0]).spec.trained) - set(registry.get(case.values[0]).spec.stops)
]


@pytest.mark.parametrize("check", CHECKS)
@every
def test_objective_passes(name: str, check: str) -> None:
    """See `objective_checks`: golden numbers, the independent reference, its gradient, signs, masks."""
    CHECKS[check](registry.get(name).spec)


@every
def test_every_option_is_tested_away_from_its_default(name: str) -> None:
    spec = registry.get(name).spec
    given = [*variants(spec), *(case["options"] for case in golden_cases(name))]
    for option, (_, default) in spec.defaults.items():
        fixed = resolve(default, "tokens")
        assert any(one.get(option, fixed) != fixed for one in given), option


@in_all_situations
def test_losses_are_finite_one_a_record(name: str, optional: bool, options: dict[str, Any]) -> None:
    spec = registry.get(name).spec
    losses = losses_of(spec, tensors_of(spec, optional=optional), options)
    assert losses.shape == (B,)
    assert losses.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@every
def test_float64_stays_float64_and_everything_else_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    spec = registry.get(name).spec
    optional, options = next(situations(spec))
    tensors = {key: t.to(dtype) for key, t in tensors_of(spec, optional=optional).items()}
    losses = losses_of(spec, tensors, options)
    assert losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = losses_of(spec, {key: tensor.double() for key, tensor in tensors.items()}, options)
    torch.testing.assert_close(losses.double(), exact, rtol=1e-5, atol=1e-5)


@every
def test_gradient_comes_back_in_the_dtype_of_the_input(name: str) -> None:
    spec = registry.get(name).spec
    optional, options = next(situations(spec))
    tensors = {key: t.bfloat16() for key, t in tensors_of(spec, optional=optional).items()}
    trained = {key: tensors[key].requires_grad_() for key in spec.trained}
    losses_of(spec, tensors, options).sum().backward()
    for key, tensor in trained.items():
        if tensor.grad is None:
            assert key in spec.stops
        else:
            assert tensor.grad.dtype == torch.bfloat16 and tensor.grad.isfinite().all()


@pytest.mark.parametrize(("name", "optional", "options"), APART)
def test_row_16_permuting_the_batch_permutes_the_losses(name: str, optional: bool, options: dict[str, Any]) -> None:
    spec = registry.get(name).spec
    tensors, order = tensors_of(spec, optional=optional), torch.tensor([3, 0, 4, 1, 2])
    permuted = losses_of(spec, {key: tensor[order] for key, tensor in tensors.items()}, options)
    torch.testing.assert_close(permuted, losses_of(spec, tensors, options)[order], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("name", "optional", "options"), APART)
def test_row_16_a_batch_gives_the_losses_of_its_records(name: str, optional: bool, options: dict[str, Any]) -> None:
    spec = registry.get(name).spec
    tensors = tensors_of(spec, optional=optional)
    singles = [losses_of(spec, {key: t[i : i + 1] for key, t in tensors.items()}, options) for i in range(B)]
    torch.testing.assert_close(torch.cat(singles), losses_of(spec, tensors, options), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("name", "optional", "options"), LISTED)
def test_permuting_the_candidates_of_a_list_changes_nothing(name: str, optional: bool, options: dict[str, Any]) -> None:
    spec = registry.get(name).spec
    tensors = tensors_of(spec, optional=optional)
    listed = [key for key in tensors if parse(key).group == "list" or key == "ranks"]
    order = torch.tensor([2, 0, 3, 1])
    moved = {}
    for key, tensor in tensors.items():
        moved[key] = tensor[:, order] if key in listed else tensor
        if key in listed and tensor.dim() == 3 and tensor.shape[1] == tensor.shape[2]:
            moved[key] = moved[key][:, :, order]  # a matrix of pairs
    torch.testing.assert_close(losses_of(spec, moved, options), losses_of(spec, tensors, options))


@every
def test_row_16_a_record_of_weight_0_changes_nothing(name: str) -> None:
    """Neither the sums of the others nor, whatever it holds, a gradient."""
    spec = registry.get(name).spec
    optional, options = next(situations(spec))
    kept, weights = torch.tensor([True, True, False, True, True]), torch.ones(B, dtype=torch.float64)
    weights[2] = 0
    tensors = tensors_of(spec, optional=optional)
    for key in spec.trained:
        tensors[key].requires_grad_()
    ((total, weight),) = reduce_sums([(1.0, name, Terms(losses_of(spec, tensors, options), weights))])
    total.backward()
    assert weight == B - 1
    gradients = [tensors[key].grad for key in spec.trained]
    assert any(bool((g != 0).any()) for g in gradients if g is not None)
    if spec.coupling is None:
        alone = losses_of(spec, {key: t[kept] for key, t in tensors.items()}, options).sum()
        torch.testing.assert_close(total, alone, rtol=1e-13, atol=1e-13)
        assert all((g[2] == 0).all() for g in gradients if g is not None)


@in_all_situations
def test_gradient_flows_into_nothing_but_what_is_trained(name: str, optional: bool, options: dict[str, Any]) -> None:
    spec = registry.get(name).spec
    tensors = {key: t.requires_grad_() for key, t in tensors_of(spec, optional=optional).items()}
    losses_of(spec, tensors, options).sum().backward()
    assert any(tensors[key].grad is not None for key in spec.trained)
    for key, tensor in tensors.items():
        assert tensor.grad is None or key in spec.trained, key


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("likelihood", ["tokens", "denoising"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@every
def test_row_15_extreme_inputs_give_finite_losses_and_gradients(
    name: str, dtype: torch.dtype, likelihood: str, sign: float
) -> None:
    """Numbers of 1e4 either way, under the scales of text and of denoisers; no further than the objective's domain."""
    spec = registry.get(name).spec
    optional, options = next(situations(spec))
    tensors = {key: t.to(dtype) for key, t in tensors_of(spec, optional=optional).items()}
    for key in tensors:
        parsed = parse(key)
        if parsed.kind == "model" and parsed.ndim is not None:
            low, high = spec.domain.get(key, (-math.inf, math.inf))
            if parsed.quantity in ("kl", "errors", "std"):
                low = max(low, 0.01)
            direction = -sign if parsed.group == "rejected" else sign
            extreme = torch.full_like(tensors[key], direction * 1e4).clamp(low, high)
            tensors[key] = extreme.requires_grad_()
        elif key in spec.trained:
            tensors[key].requires_grad_()
    value = spec.evaluate(tensors, options_of(spec, options, likelihood=likelihood))
    losses = value.losses if isinstance(value, Terms) else value
    losses.sum().backward()
    assert losses.isfinite().all()
    assert all(t.grad.isfinite().all() for t in tensors.values() if t.grad is not None)


@every
def test_outside_its_domain_an_objective_raises_or_stays_finite(name: str) -> None:
    spec = registry.get(name).spec
    optional, options = next(situations(spec))
    for key, (low, high) in spec.domain.items():
        for beyond in ([low - 1.0, -1e4] if math.isfinite(low) else []) + (
            [high + 1.0, 1e4] if math.isfinite(high) else []
        ):
            tensors = tensors_of(spec, optional=optional)
            if key not in tensors:  # an optional column
                continue
            tensors[key] = torch.full_like(tensors[key], beyond)
            for trained in spec.trained:
                tensors[trained].requires_grad_()
            try:
                losses = losses_of(spec, tensors, options)
            except ConfigError as error:
                assert key in str(error)
            else:
                losses.sum().backward()
                assert losses.isfinite().all(), key
                assert tensors[key].grad is None or tensors[key].grad.isfinite().all(), key


@pytest.mark.parametrize(("name", "optional", "options"), FREE)
def test_gradient_is_that_of_finite_differences(name: str, optional: bool, options: dict[str, Any]) -> None:
    spec = registry.get(name).spec
    tensors = tensors_of(spec, optional=optional, seed=3)
    free = [key for key in spec.trained if key not in spec.stops]

    def function(*values: Tensor) -> Tensor:
        return losses_of(spec, {**tensors, **dict(zip(free, values, strict=True))}, options)

    assert torch.autograd.gradcheck(function, [tensors[key].clone().requires_grad_() for key in free])


@every
def test_a_tensor_of_another_shape_is_refused(name: str) -> None:
    spec = registry.get(name).spec
    optional, options = next(situations(spec))
    for key, tensor in tensors_of(spec, optional=optional).items():
        if parse(key).kind != "free" and parse(key).ndim is None:
            continue
        others = tensors_of(spec, optional=optional)
        with pytest.raises(ShapeError, match=key):
            losses_of(spec, {**others, key: tensor.unsqueeze(-1)}, options)


@every
def test_every_objective_is_documented_sourced_and_exported(name: str) -> None:
    function = registry.get(name)
    doc = function.__doc__ or ""
    assert function.spec.source and function.spec.evidence and function.spec.published
    assert all(section in doc for section in (".. math::", "Args:", "Returns:", "Source:", "Reduces to:", ">>>"))
    assert all(f"{word}:" in doc for word in (*function.spec.tensors, *function.spec.optional, *function.spec.defaults))
    assert getattr(objectives, name) is function and name in objectives.__all__
    assert (GOLDEN / f"{name}.json").exists()


@every
def test_the_example_in_the_docstring_runs(name: str) -> None:
    module = importlib.import_module(registry.get(name).spec.function.__module__)
    finder = doctest.DocTestFinder(recurse=False)
    tests = finder.find(registry.get(name).spec.function, name, module=module, globs=vars(module))
    assert sum(len(test.examples) for test in tests) >= 1
    assert all(doctest.DocTestRunner().run(test).failed == 0 for test in tests)
