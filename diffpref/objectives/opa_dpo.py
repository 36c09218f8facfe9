"""OPA-DPO: three answers to a picture, weighted tokens, a corrupted picture, and an anchor for the good answers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from diffpref.core.annotations import NonNegative, Number, Positive
from diffpref.objectives.base import objective

__all__ = ["opa_dpo"]

WEIGHTS = (0.0, 3.0)


@objective(
    "opa_dpo",
    kind="pairwise",
    source="Yang et al., Mitigating Hallucinations in Large Vision-Language Models via DPO: On-Policy Data Hold the"
    " Key, arXiv:2501.09695",
    evidence="official",
    signs={
        "gold_token_log_ratio": "-",
        "chosen_token_log_ratio": "-",
        "rejected_token_log_ratio": "+",
        "mismatched_token_log_ratio": "+",
        "corrupted_token_log_ratio": "+",
    },
    domain=dict.fromkeys(("chosen_token_score", "rejected_token_score", "corrupted_token_score"), WEIGHTS),
)
def opa_dpo(
    *,
    gold_token_log_ratio: Tensor,
    gold_token_mask: Tensor,
    chosen_token_log_ratio: Tensor,
    chosen_token_mask: Tensor,
    chosen_token_score: Tensor,
    rejected_token_log_ratio: Tensor,
    rejected_token_mask: Tensor,
    rejected_token_score: Tensor,
    mismatched_token_log_ratio: Tensor,
    corrupted_token_log_ratio: Tensor,
    corrupted_token_score: Tensor,
    beta: Positive = 0.1,
    copo_coef: NonNegative = 0.2,
    anchor_coef: NonNegative = 1.0,
    anchor_value: Number = 0.0,
    opa_mode: Literal["sequence", "official_script"] = "sequence",
) -> Tensor:
    r"""Prefer a true and a revised answer to the original one, and both on the true picture to a corrupted one.

    .. math:: \ell = L(D_s - D_o) + L(c_a D_a - c_o D_o) + \lambda\,\big[L(D_s - D_s') + L(i_a (D_a - D_a'))\big] +
              \kappa\,\big[L(D_s - \delta/\beta) + L(D_a - \delta/\beta)\big], \quad L(x) = -\log\sigma(\beta x)

    where D is the sum over an answer's tokens of log-ratios times the weights before it.

    Args:
        gold_token_log_ratio: (B, T) policy minus reference log-probability of each token of the true answer s.
        gold_token_mask: (B, T) 1 at its tokens.
        chosen_token_log_ratio: (B, T) the same of the revised answer a.
        chosen_token_mask: (B, T) 1 at its tokens.
        chosen_token_score: (B, T) weight of each of its tokens, c_a: 2.5, 2, 1.5 or 1 by severity of what was revised.
            No gradient.
        rejected_token_log_ratio: (B, T) the same of the original answer o.
        rejected_token_mask: (B, T) 1 at its tokens.
        rejected_token_score: (B, T) weight of each of its tokens, c_o. No gradient.
        mismatched_token_log_ratio: (B, T) the true answer's tokens given the corrupted picture, s'.
        corrupted_token_log_ratio: (B, T) the revised answer's tokens given the corrupted picture, a'.
        corrupted_token_score: (B, T) weight i_a of its tokens: 3 for errors of image recognition, else 1. No gradient.
        beta: inverse temperature.
        copo_coef: lambda above, weight of the pairs of pictures.
        anchor_coef: kappa above, weight of the anchor.
        anchor_value: delta above.
        opa_mode: sums over answers, as the paper writes; or the script, which compares token i of one answer with token
            i of another, averages over padding too, counts the anchor twice and pushes the revised answer's down.

    Returns:
        (B,) positive losses, unreduced; 4.4 ln 2 where policy and reference agree, 6.4 ln 2 as in the script.

    Raises:
        ShapeError: the tensors of one answer differ in shape.

    Source: Yang et al., OPA-DPO, CVPR 2025; zhyang2226/OPA-DPO ``dpo_trainer.py``.
    Reduces to: `dpo` of the true and the original answer, twice, where the revised answer is the true one, weights are
    1 and both coefficients 0.

    >>> import torch
    >>> one = torch.ones(1, 1)
    >>> tokens = {"gold_token_log_ratio": 0 * one, "chosen_token_log_ratio": 0 * one}
    >>> tokens |= {"rejected_token_log_ratio": 0 * one, "mismatched_token_log_ratio": 0 * one}
    >>> tokens |= {"corrupted_token_log_ratio": 0 * one, "corrupted_token_score": one}
    >>> masks = {"gold_token_mask": one, "chosen_token_mask": one, "rejected_token_mask": one}
    >>> round(opa_dpo(**tokens, **masks, chosen_token_score=one, rejected_token_score=one).item(), 6)
    3.049848
    """
    true, revised, original = gold_token_mask > 0, chosen_token_mask > 0, rejected_token_mask > 0
    gold = torch.where(true, gold_token_log_ratio, 0.0)
    chosen = torch.where(revised, chosen_token_log_ratio, 0.0)
    rejected = torch.where(original, rejected_token_log_ratio, 0.0)
    values = [
        gold,
        chosen,
        rejected,
        torch.where(revised, chosen_token_score, 0.0) * chosen,
        torch.where(original, rejected_token_score, 0.0) * rejected,
        gold - torch.where(true, mismatched_token_log_ratio, 0.0),
        corrupted_token_score * (chosen - torch.where(revised, corrupted_token_log_ratio, 0.0)),
    ]
    if opa_mode == "official_script":
        length = max(value.shape[1] for value in values)
        values = [beta * pad(value, (0, length - value.shape[1])) for value in values]
    else:
        values = [beta * value.sum(dim=1, keepdim=True) for value in values]
    gold, chosen, rejected, weighted, weighted_rejected, gold_gap, chosen_gap = values
    pairs = logsigmoid(gold - rejected) + logsigmoid(weighted - weighted_rejected)
    pictures = logsigmoid(gold_gap) + logsigmoid(chosen_gap)
    if opa_mode == "official_script":
        anchor = 2 * (logsigmoid(gold - anchor_value) + logsigmoid(anchor_value - chosen))
    else:
        anchor = logsigmoid(gold - anchor_value) + logsigmoid(chosen - anchor_value)
    return -(pairs + copo_coef * pictures + anchor_coef * anchor).mean(dim=1)
