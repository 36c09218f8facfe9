"""How probable an answer is, from logits: arithmetic alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from diffpref.core.errors import ShapeError

__all__ = ["answer_probability", "expected_value", "geometric_mean_probability"]


def _logps(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (N, L) log-probabilities of the tokens of answers."""
    if logits.dim() != 3 or labels.shape != logits.shape[:2]:
        raise ShapeError(
            f"expected logits (N, L, V) and labels (N, L), got {tuple(logits.shape)}, {tuple(labels.shape)}"
        )
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return functional.log_softmax(wide, dim=-1).gather(-1, labels[..., None]).squeeze(-1)


def geometric_mean_probability(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Return exp of the mean log-probability of an answer's tokens: VQAScore of CLIP-FlanT5.

    .. math:: s = \Big(\prod_l p(y_l)\Big)^{1/L}

    Args:
        logits: (N, L, V) at the places of the answer.
        labels: (N, L) its tokens, with the end-of-text token where the model learnt to say it.

    Returns:
        (N,) in (0, 1), float32; float64 for float64 logits.

    Raises:
        ShapeError: shapes that do not fit.

    Source: Lin et al., Evaluating Text-to-Visual Generation with Image-to-Text Generation, ECCV 2024; official code.
    """
    return _logps(logits, labels).mean(dim=-1).exp()


def answer_probability(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Return the probability of an answer's tokens, :math:`\prod_l p(y_l)`.

    Args:
        logits: (N, L, V) at the places of the answer.
        labels: (N, L) its tokens; of one token, the probability that the answer begins with it.

    Returns:
        (N,) in (0, 1), float32; float64 for float64 logits.

    Raises:
        ShapeError: shapes that do not fit.
    """
    return _logps(logits, labels).sum(dim=-1).exp()


def expected_value(logits: Tensor, ids: Tensor, values: Tensor, *, share: bool = False) -> Tensor:
    r"""Return the mean of some answers' values, each by its probability among them.

    .. math:: s = \frac{\sum_k p(y_k)\, v_k}{\sum_k p(y_k)}

    Args:
        logits: (N, V) at the first place of the answer.
        ids: (K,) first tokens of the answers.
        values: (K,) what they are worth.
        share: also return the probability of each answer among them.

    Returns:
        (N,), or with ``share`` (N, 1 + K): the value, then the probabilities, which sum to 1.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    among = wide[:, ids.to(logits.device)].softmax(dim=-1)
    value = among @ values.to(among)
    return torch.cat([value[:, None], among], dim=1) if share else value
