"""What every objective must pass, as plain functions: the tests run them over the registry, the mutation check over
broken copies of each objective.

A check takes the specification of an objective and raises `AssertionError` (or any other error) when it fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from objective_cases import golden_cases, losses_of, options_of, reference, situations, tensors_of
from torch import Tensor

from diffpref.core.contracts import Terms
from diffpref.core.vocabulary import parse
from diffpref.objectives import ObjectiveSpec

__all__ = ["CHECKS"]

POINTS = tuple(range(3))
"""Seeds of the points at which an objective is compared with its reference."""


def printed(actual: Any, expected: Any) -> None:
    """Compare with numbers given as text: to 1e-6, or half a unit of the last printed digit where that is coarser."""
    if isinstance(expected, list):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            printed(a, e)
        return
    number, unit = float(torch.as_tensor(actual).detach()), 10.0 ** int(Decimal(expected).as_tuple().exponent)
    assert abs(number - float(expected)) <= 0.5000001 * unit, f"{number:.12g} is not {expected}"


def golden_tensors(case: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the inputs of a golden case in float64."""
    return {key: torch.tensor(values, dtype=torch.float64) for key, values in case["tensors"].items()}


def check_golden(spec: ObjectiveSpec) -> None:
    """The documented numbers: losses, their mean and its gradient, weights, and the running statistics afterwards."""
    for case in golden_cases(spec.name):
        tensors = golden_tensors(case)
        for key in case.get("mean_gradient", {}):
            tensors[key].requires_grad_()
        state = {name: torch.tensor(value, dtype=torch.float64) for name, value in case.get("state", {}).items()}
        value = spec.evaluate(tensors, options_of(spec, case["options"]), state or None)
        terms = value if isinstance(value, Terms) else Terms(value)
        if "losses" in case:
            printed(terms.losses, case["losses"])
        if "weights" in case:
            assert terms.weights is not None
            printed(terms.weights, case["weights"])
        weights = torch.ones_like(terms.losses) if terms.weights is None else terms.weights
        mean = (weights * terms.losses).sum() / weights.sum()
        if "mean" in case:
            printed(mean, case["mean"])
        for name, expected in case.get("new_state", {}).items():
            assert terms.state is not None
            printed(terms.state[name], expected)
        if "mean_gradient" in case:
            mean.backward()
            for key, expected in case["mean_gradient"].items():
                gradient = tensors[key].grad
                printed(torch.zeros_like(tensors[key]) if gradient is None else gradient, expected)
        assert "losses" in case or "mean" in case


def _numpy(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}


def _expected(spec: ObjectiveSpec, tensors: Mapping[str, np.ndarray], options: Mapping[str, Any], **more: Any) -> Any:
    answer = reference(spec)(**tensors, **options_of(spec, options).model_dump(), **more)
    return answer if isinstance(answer, dict) else {"losses": answer}


def check_reference(spec: ObjectiveSpec) -> None:
    """The independent numpy implementation: 1e-9 relative in float64, 1e-5 in float32."""
    holds = "stopped" in inspect.signature(reference(spec)).parameters
    for optional, options in situations(spec):
        for seed in POINTS:
            for scale in (0.3, 1.0, 5.0):
                tensors = tensors_of(spec, seed, optional=optional, scale=scale)
                more: dict[str, Any] = {"stopped": _numpy(tensors)} if holds else {}
                if spec.init is not None:
                    more["state"] = {name: value.numpy() for name, value in spec.init().items()}
                expected = _expected(spec, _numpy(tensors), options, **more)
                value = spec.evaluate(tensors, options_of(spec, options))
                terms = value if isinstance(value, Terms) else Terms(value)
                np.testing.assert_allclose(terms.losses.detach().numpy(), expected["losses"], rtol=1e-9, atol=1e-10)
                assert (terms.weights is not None) == ("weights" in expected), "weights: one side gives none"
                if terms.weights is not None:
                    assert not terms.weights.requires_grad, "weights carry gradient"
                    np.testing.assert_allclose(terms.weights.numpy(), expected["weights"], rtol=1e-9, atol=1e-12)
                assert sorted(terms.state or {}) == sorted(expected.get("state", {}))
                for name, number in (terms.state or {}).items():
                    np.testing.assert_allclose(number.detach().numpy(), expected["state"][name], rtol=1e-9, atol=1e-12)
                single = losses_of(spec, {name: tensor.float() for name, tensor in tensors.items()}, options)
                np.testing.assert_allclose(single.detach().numpy(), expected["losses"], rtol=1e-5, atol=1e-5)


def check_gradient(spec: ObjectiveSpec) -> None:
    """The gradient of the reference by central differences; what the reference takes as ``stopped`` is held still."""
    step = 1e-6
    holds = "stopped" in inspect.signature(reference(spec)).parameters
    assert holds == bool(spec.stops), f"stops {spec.stops}: the reference {'has' if holds else 'lacks'} `stopped`"
    for optional, options in situations(spec):
        tensors = tensors_of(spec, 1, optional=optional)
        trained = {name: tensors[name].requires_grad_() for name in spec.trained}
        value = spec.evaluate(tensors, options_of(spec, options))
        terms = value if isinstance(value, Terms) else Terms(value)
        terms.losses.sum().backward()
        base = _numpy(tensors)
        more: dict[str, Any] = {"stopped": base} if holds else {}
        if spec.init is not None:
            more["state"] = {name: value.numpy() for name, value in spec.init().items()}
        for name, tensor in trained.items():
            found = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
            expected = np.zeros(tensor.shape)
            for index in np.ndindex(*tensor.shape):
                ends = []
                for sign in (1, -1):
                    moved = {**base, name: base[name].copy()}
                    moved[name][index] += sign * step
                    ends.append(_expected(spec, moved, options, **more)["losses"].sum())
                expected[index] = (ends[0] - ends[1]) / (2 * step)
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6, err_msg=name)


def check_signs(spec: ObjectiveSpec) -> None:
    """Each declared sign holds at every point under the first variant, whose labels are certain, and is not empty; a
    trained tensor without one goes both ways somewhere.
    """
    seen: dict[str, set[str]] = {name: set() for name in spec.trained}
    for number, (optional, options) in enumerate(situations(spec)):
        for seed in range(8):
            for scale in (0.1, 1.0, 20.0):
                tensors = tensors_of(spec, seed, optional=optional, scale=scale)
                for name in spec.trained:
                    tensors[name].requires_grad_()
                losses_of(spec, tensors, options).sum().backward()
                for name in spec.trained:
                    gradient = tensors[name].grad
                    if gradient is not None and (number == 0 or name not in spec.signs):
                        seen[name] |= {"+"} if bool((gradient > 1e-12).any()) else set()
                        seen[name] |= {"-"} if bool((gradient < -1e-12).any()) else set()
    for name, found in seen.items():
        if name in spec.signs:
            assert found == {spec.signs[name]}, f"{name}: declared '{spec.signs[name]}', seen {sorted(found)}"
        elif found:  # a tensor whose gradient is cut has none
            assert found == {"-", "+"}, f"{name}: only '{found.pop()}' is seen; declare it in signs"
        else:
            assert name in spec.stops, f"{name}: no gradient reaches it, yet it is not among stops"


def check_masked(spec: ObjectiveSpec) -> None:
    """What a mask leaves out may be anything, even NaN: neither the losses nor the gradients feel it."""
    for optional, options in situations(spec):
        tensors = tensors_of(spec, 2, optional=optional)
        masks = {parse(name): name for name in tensors if parse(name).quantity == "mask"}
        if not masks:
            continue
        spoilt = dict(tensors)
        for mask, name in masks.items():
            absent = tensors[name] == 0
            for other in map(parse, tensors):
                alike = (other.group, other.unit) == (mask.group, mask.unit)
                if alike and other.quantity != "mask" and tensors[str(other)].shape == absent.shape:
                    spoilt[str(other)] = tensors[str(other)].masked_fill(absent, float("nan"))
        for values in (tensors, spoilt):
            for name in spec.trained:
                values[name] = values[name].clone().requires_grad_()
        clean, dirty = (losses_of(spec, values, options) for values in (tensors, spoilt))
        torch.testing.assert_close(dirty, clean, rtol=1e-12, atol=1e-12)
        clean.sum().backward(), dirty.sum().backward()
        for name in spec.trained:
            first, second = tensors[name].grad, spoilt[name].grad
            assert (first is None) == (second is None)
            if first is not None and second is not None:
                torch.testing.assert_close(second, first, rtol=1e-9, atol=1e-12)


CHECKS: dict[str, Callable[[ObjectiveSpec], None]] = {
    "golden": check_golden,
    "reference": check_reference,
    "gradient": check_gradient,
    "signs": check_signs,
    "masked": check_masked,
}
