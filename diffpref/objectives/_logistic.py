"""The logistic loss of a margin, under a certain or an uncertain label: shared by the objectives of pairs."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["logistic"]


def logistic(margin: Tensor, preference: Tensor | None) -> Tensor:
    """Return ``-log sigmoid(margin)``, or its expectation over the label: P(chosen is better) is ``preference``."""
    if preference is None:
        return -logsigmoid(margin)
    return -preference * logsigmoid(margin) - (1 - preference) * logsigmoid(-margin)
