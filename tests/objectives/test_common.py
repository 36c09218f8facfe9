"""What every objective promises, whatever its formula: parametrised over the registry."""

from __future__ import annotations

import doctest
import importlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref import objectives
from diffpref.core.contracts import Terms
from diffpref.core.errors import ShapeError
from diffpref.core.vocabulary import parse
from diffpref.objectives import registry
from diffpref.objectives.compose import reduce_sums

GOLDEN = Path(__file__).parents[1] / "golden" / "objectives"
NAMES = registry.names()
CASES = [
    pytest.param(name, case, id=f"{name}: {case['name']}")
    for name in NAMES
    for case in json.loads((GOLDEN / f"{name}.json").read_text())["cases"]
]
B, K, T = 5, 3, 4


def tensors_of(name: str, optional: bool = False, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Plausible tensors for an objective, of the shapes that their names promise."""
    spec = registry.get(name).spec
    generator = torch.Generator().manual_seed(0)
    result = {}
    for key in (*spec.tensors, *(spec.optional if optional else ())):
        parsed = parse(key)
        shape = (B, *([K] if parsed.group == "list" or key == "ranks" else []), *([T] if parsed.unit else []))
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        if parsed.quantity == "length":
            values = values.abs().mul(4).ceil() + 1
        elif parsed.quantity in ("preference", "weight", "win_rate"):
            values = values.sigmoid()
        elif parsed.quantity in ("mask", "label"):
            values = (values > 0).to(torch.float64)
        result[key] = values.to(dtype)
    return result


def options_of(name: str, optional: bool) -> dict[str, Any]:
    """Options that differ from the defaults where the objective would need a column that the batch lacks."""
    return {"length_normalize": False} if name == "ipo" and not optional else {}


def losses_of(name: str, tensors: dict[str, Tensor], **options: Any) -> Tensor:
    optional = bool(set(tensors) - set(registry.get(name).spec.tensors))
    value = registry.get(name)(**tensors, **{**options_of(name, optional), **options})
    return value.losses if isinstance(value, Terms) else value


def printed(actual: Any, expected: Any) -> None:
    """Compare with numbers given as text, to half a unit of the last digit."""
    if isinstance(expected, list):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            printed(a, e)
        return
    number, unit = float(torch.as_tensor(actual).detach()), 10.0 ** int(Decimal(expected).as_tuple().exponent)
    assert abs(number - float(expected)) <= 0.5000001 * unit, f"{number:.12g} is not {expected}"


@pytest.mark.parametrize(("name", "case"), CASES)
def test_golden_losses_are_met_to_the_last_printed_digit(name: str, case: dict[str, Any]) -> None:
    tensors = {key: torch.tensor(values, dtype=torch.float64) for key, values in case["tensors"].items()}
    losses = losses_of(name, tensors, **case["options"])
    printed(losses, case["losses"])
    printed(losses.mean(), case["mean"])


@pytest.mark.parametrize(("name", "case"), CASES)
def test_golden_gradients_are_met_to_the_last_printed_digit(name: str, case: dict[str, Any]) -> None:
    tensors = {key: torch.tensor(values, dtype=torch.float64) for key, values in case["tensors"].items()}
    for key in case["mean_gradient"]:
        tensors[key].requires_grad_()
    losses_of(name, tensors, **case["options"]).mean().backward()
    for key, expected in case["mean_gradient"].items():
        printed(tensors[key].grad, expected)


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_losses_are_finite_one_a_record(name: str, optional: bool) -> None:
    losses = losses_of(name, tensors_of(name, optional))
    assert losses.shape == (B,)
    assert losses.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_float64_stays_float64_and_everything_else_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    tensors = tensors_of(name, dtype=dtype)
    losses = losses_of(name, tensors)
    assert losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = losses_of(name, {key: tensor.double() for key, tensor in tensors.items()})
    torch.testing.assert_close(losses.double(), exact, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_comes_back_in_the_dtype_of_the_input(name: str) -> None:
    tensors = tensors_of(name, dtype=torch.bfloat16)
    trained = [t.requires_grad_() for key, t in tensors.items() if parse(key).role in ("", "policy")]
    losses_of(name, tensors).sum().backward()
    assert all(t.grad is not None and t.grad.dtype == torch.bfloat16 and t.grad.isfinite().all() for t in trained)


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_row_16_permuting_the_batch_permutes_the_losses(name: str, optional: bool) -> None:
    if registry.get(name).spec.coupling:
        pytest.skip("couples the batch")
    tensors, order = tensors_of(name, optional), torch.tensor([3, 0, 4, 1, 2])
    permuted = losses_of(name, {key: tensor[order] for key, tensor in tensors.items()})
    assert torch.equal(permuted, losses_of(name, tensors)[order])


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_row_16_a_batch_gives_the_losses_of_its_records(name: str, optional: bool) -> None:
    if registry.get(name).spec.coupling:
        pytest.skip("couples the batch")
    tensors = tensors_of(name, optional)
    singles = [losses_of(name, {key: t[i : i + 1] for key, t in tensors.items()}) for i in range(B)]
    torch.testing.assert_close(torch.cat(singles), losses_of(name, tensors), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_row_16_a_record_of_weight_0_changes_nothing(name: str, optional: bool) -> None:
    """Neither the sums of the others nor, whatever it holds, a gradient."""
    kept, weights = torch.tensor([True, True, False, True, True]), torch.ones(B, dtype=torch.float64)
    weights[2] = 0
    tensors = {key: t.requires_grad_() for key, t in tensors_of(name, optional).items()}
    ((total, weight),) = reduce_sums([(1.0, name, Terms(losses_of(name, tensors), weights))])
    total.backward()
    if registry.get(name).spec.coupling is None:
        alone = losses_of(name, {key: t[kept] for key, t in tensors.items()}).sum()
        torch.testing.assert_close(total, alone, rtol=1e-14, atol=1e-14)
    assert weight == B - 1
    assert all((t.grad[2] == 0).all() for t in tensors.values() if t.grad is not None)
    assert any((t.grad[0] != 0).any() for t in tensors.values() if t.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_raising_the_chosen_and_lowering_the_rejected_lowers_the_loss_at_zero(name: str) -> None:
    tensors = {key: torch.zeros_like(t).requires_grad_() for key, t in tensors_of(name).items()}
    losses_of(name, tensors).sum().backward()
    for key, tensor in tensors.items():
        parsed = parse(key)
        if parsed.role in ("", "policy") and parsed.quantity in ("log_ratio", "logps") and tensor.grad is not None:
            sign = {"chosen": -1, "rejected": 1}.get(parsed.group, 0)
            assert (tensor.grad * sign >= 0).all(), key


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_flows_into_nothing_but_the_policy(name: str, optional: bool) -> None:
    tensors = {key: t.requires_grad_() for key, t in tensors_of(name, optional).items()}
    losses_of(name, tensors).sum().backward()
    for key, tensor in tensors.items():
        parsed = parse(key)
        if parsed.kind != "model" or parsed.role not in ("", "policy"):
            assert tensor.grad is None, key


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("likelihood", ["tokens", "denoising"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_row_15_extreme_inputs_give_finite_losses_and_gradients(
    name: str, dtype: torch.dtype, likelihood: str, sign: float
) -> None:
    """Log-ratios of 1e4 either way, under the betas of text and of denoisers: 0.1 and 5000 for DPO."""
    spec = registry.get(name).spec
    tensors = tensors_of(name, dtype=dtype)
    for key in tensors:
        parsed = parse(key)
        if parsed.kind == "model":
            direction = -sign if parsed.group == "rejected" else sign
            tensors[key] = torch.full_like(tensors[key], direction * 1e4).requires_grad_()
    options = spec.read_options(options_of(name, optional=False), likelihood=likelihood)
    value = spec.evaluate(tensors, options)
    losses = value.losses if isinstance(value, Terms) else value
    losses.sum().backward()
    assert losses.isfinite().all()
    assert all(t.grad.isfinite().all() for t in tensors.values() if t.grad is not None)


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_that_of_finite_differences(name: str, optional: bool) -> None:
    tensors = tensors_of(name, optional)
    trained = [k for k in tensors if parse(k).kind == "model" and parse(k).role in ("", "policy")]

    def function(*values: Tensor) -> Tensor:
        return losses_of(name, {**tensors, **dict(zip(trained, values, strict=True))})

    assert torch.autograd.gradcheck(function, [tensors[key].clone().requires_grad_() for key in trained])


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_of_another_shape_is_refused(name: str) -> None:
    for key, tensor in tensors_of(name).items():
        others = tensors_of(name)
        with pytest.raises(ShapeError, match=key):
            losses_of(name, {**others, key: tensor.unsqueeze(-1)})


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_is_documented_sourced_and_exported(name: str) -> None:
    function = registry.get(name)
    doc = function.__doc__ or ""
    assert function.spec.source and function.spec.evidence
    assert all(section in doc for section in (".. math::", "Args:", "Returns:", "Source:", "Reduces to:", ">>>"))
    assert all(f"{word}:" in doc for word in (*function.spec.tensors, *function.spec.optional, *function.spec.defaults))
    assert getattr(objectives, name) is function and name in objectives.__all__
    assert (GOLDEN / f"{name}.json").exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_example_in_the_docstring_runs(name: str) -> None:
    module = importlib.import_module(registry.get(name).spec.function.__module__)
    finder = doctest.DocTestFinder(recurse=False)
    tests = finder.find(registry.get(name).spec.function, name, module=module, globs=vars(module))
    assert sum(len(test.examples) for test in tests) >= 1
    assert all(doctest.DocTestRunner().run(test).failed == 0 for test in tests)
