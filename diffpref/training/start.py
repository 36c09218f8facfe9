"""Where a run begins: policy and reference are one model, so every log-ratio must be 0 before the first update.

They run with the same rows, dtype and kernels, so it is exactly 0. What is not shows that two models are compared: a
reference of other weights, or kernels that differ by more than rounding; beta makes thousands of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffpref.core.contracts import Tensors
from diffpref.core.errors import ConfigError
from diffpref.training.plan import Plan

__all__ = ["LARGEST_LOGIT", "check_start", "starts_at_reference"]

logger = logging.getLogger(__name__)

LARGEST_LOGIT = 1e-3


def starts_at_reference(plan: Plan) -> bool:
    """Whether the policy begins as what it is compared with."""
    spec = plan.specs.get("reference")
    return spec is not None and spec.source in ("auto", "base", "copy")


def check_start(plan: Plan, log_ratios: Sequence[Tensors], largest: Callable[[Tensor], Tensor]) -> None:
    """Tell how far policy and reference differ at the first update, and stop when they should not.

    Args:
        plan: of the run.
        log_ratios: of each micro-batch: group -> log-ratios.
        largest: returns the largest of each element over all processes.

    Raises:
        ConfigError: the two should be equal, but beta times a log-ratio, or times the difference of a pair, is beyond
            `LARGEST_LOGIT`. Every process raises, and nothing was changed.
    """
    seen = [tensor for found in log_ratios for tensor in found.values()]
    if not seen:  # a method without a reference
        return
    pairs = [f["chosen"] - f["rejected"] for f in log_ratios if f.keys() >= {"chosen", "rejected"}]
    beta = max((float(getattr(term.options, "beta", 0.0)) for term in plan.composition.terms), default=0.0) or 1.0
    ratio, logit = largest(torch.stack([_largest(seen), beta * _largest([*seen, *pairs])])).tolist()
    logger.info("start: largest |log-ratio| %.3g, largest |logit| %.3g (times beta %g)", ratio, logit, beta)
    if starts_at_reference(plan) and not logit <= LARGEST_LOGIT:
        raise ConfigError(
            f"update 1: the policy should begin as the reference, but a logit is {logit:.3g}, not 0 (limit"
            f" {LARGEST_LOGIT:g}); nothing was changed. Try another model.precision or model.attention"
        )


def _largest(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.detach().abs().max() for tensor in tensors]).max()
