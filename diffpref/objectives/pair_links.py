"""What objectives of a pair have in common: how an uncertain label enters, and sums divided by lengths."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.errors import ConfigError

__all__ = ["expected", "logistic", "per_token"]


def logistic(margin: Tensor, preference: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of sigmoid(margin) with a label.

    Args:
        margin: (B,) logit of "chosen is better".
        preference: (B,) P(chosen is better); 1 where not given.
        label_smoothing: assumed probability that a label is wrong.
    """
    smoothed = 1 - label_smoothing
    probability = smoothed if preference is None else label_smoothing + (smoothed - label_smoothing) * preference
    return -probability * logsigmoid(margin) - (1 - probability) * logsigmoid(-margin)


def expected(
    loss: Callable[[Tensor, Tensor], Tensor], preference: Tensor | None, chosen: Tensor, rejected: Tensor
) -> Tensor:
    """Return the expectation of ``loss(better, worse)`` over which of the two is the better one.

    Args:
        loss: of two (B,) tensors.
        preference: (B,) P(chosen is better); 1 where not given.
        chosen: (B,) of the chosen sample.
        rejected: (B,) of the rejected sample.
    """
    if preference is None:
        return loss(chosen, rejected)
    return preference * loss(chosen, rejected) + (1 - preference) * loss(rejected, chosen)


def per_token(
    name: str,
    divide: bool,
    chosen: Tensor,
    rejected: Tensor,
    chosen_length: Tensor | None,
    rejected_length: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return two sums divided by the lengths of their samples, or as they are.

    Raises:
        ConfigError: there are no lengths to divide by.
    """
    if not divide:
        return chosen, rejected
    if chosen_length is None or rejected_length is None:
        raise ConfigError(
            f"{name}: length_normalize needs the columns chosen_length and rejected_length; "
            "set length_normalize=false to compare sums"
        )
    return chosen / chosen_length, rejected / rejected_length
