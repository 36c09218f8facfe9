"""Differential information: what a preference tells of a target policy beyond the reference, and data made to fit it.

A preference encodes how a target differs from a reference iff P(a beats b) is q(a)^beta / (q(a)^beta + q(b)^beta) with
``q = target / reference`` (normalised); `dpo` with that beta then has the target as its only optimum.
(Differential Information Distribution, arXiv:2505.23761; the formulas are derived.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffpref.core.errors import ShapeError

__all__ = [
    "did_entropy",
    "differential_information",
    "log_margin_order_violations",
    "pair_law",
    "preference_law",
    "rejected_law",
]


def differential_information(*, target: Tensor, reference: Tensor) -> Tensor:
    r"""Return log q: what turns the reference into the target, as a distribution over the same outcomes.

    .. math:: q(y) \propto \pi^*(y) / \pi_\text{ref}(y)

    Args:
        target: (..., K) log-probabilities of all outcomes.
        reference: (..., K) the same of the reference.
    """
    return torch.log_softmax(target - reference, dim=-1)


def rejected_law(*, chosen: Tensor, target: Tensor, reference: Tensor, beta: float = 1.0) -> Tensor:
    r"""Return the law from which to draw rejected outcomes, so that pairs encode the target.

    .. math:: p_l(y) \propto p_w(y)\,\big(\pi_\text{ref}(y) / \pi^*(y)\big)^\beta

    Args:
        chosen: (..., K) log-probabilities of chosen outcomes.
        target: (..., K) of the policy that `dpo` is to find.
        reference: (..., K) of its reference.
        beta: of `dpo`.

    With the target as the law of chosen outcomes and beta=1 it is the reference.
    """
    return torch.log_softmax(chosen + beta * (reference - target), dim=-1)


def preference_law(*, chosen: Tensor, rejected: Tensor) -> Tensor:
    r"""Return (..., K, K) P(first beats second) when winners and losers are drawn from two laws, by Bayes' rule.

    .. math:: P(a \succ b) = \sigma\Big(\log\frac{p_w(a)}{p_l(a)} - \log\frac{p_w(b)}{p_l(b)}\Big)

    Args:
        chosen: (..., K) log-probabilities of winners.
        rejected: (..., K) of losers.
    """
    lead = chosen - rejected
    return torch.sigmoid(lead.unsqueeze(-1) - lead.unsqueeze(-2))


def pair_law(*, chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return (..., K, K) the probability that a record holds the first as winner and the second as loser: a table of
    synthetic pairs.
    """
    return torch.exp(chosen.unsqueeze(-1) + rejected.unsqueeze(-2))


def did_entropy(*, log_ratio: Tensor, sample_logps: Tensor | None = None) -> Tensor:
    r"""Return the entropy of q in nats, from outcomes and what the target says of them beyond the reference.

    Low entropy reinforces few outcomes; high entropy smooths over many, and lowers the likelihood of chosen ones too.

    .. math:: H(q) = \log Z - E_q[u], \qquad u = \log(\pi^* / \pi_\text{ref}), \quad Z = \sum_y e^{u(y)}

    Args:
        log_ratio: (..., N) u of N outcomes: of all there are, or of samples.
        sample_logps: (..., N) log-probabilities under which samples were drawn; Z and the mean are then estimated with
            self-normalised importance weights. Not given: the outcomes are all there are.
    """
    tilted = log_ratio if sample_logps is None else log_ratio - sample_logps
    log_total = tilted.logsumexp(dim=-1) - (0.0 if sample_logps is None else math.log(log_ratio.shape[-1]))
    weights = torch.softmax(tilted, dim=-1)
    return log_total - (weights * log_ratio).sum(dim=-1)


def log_margin_order_violations(*, chosen_logps: Tensor, rejected_logps: Tensor) -> Tensor:
    """Return (B,) the share of steps from one policy to the next whose log-margin does not rise.

    Policies on the way from the reference to the target are ordered by their log-margins where none is violated; pairs
    that violate the order do not encode the way.

    Args:
        chosen_logps: (P, B) log-likelihoods of the chosen samples under P policies, from the reference on.
        rejected_logps: (P, B) of the rejected ones.

    Raises:
        ShapeError: the shapes differ, or there are fewer than two policies.
    """
    if chosen_logps.shape != rejected_logps.shape or chosen_logps.dim() != 2 or len(chosen_logps) < 2:
        raise ShapeError(
            f"log-margin order: chosen_logps has shape {tuple(chosen_logps.shape)}, rejected_logps"
            f" {tuple(rejected_logps.shape)}; both must be (policies, pairs) with two policies or more"
        )
    margins = chosen_logps - rejected_logps
    return (margins[1:] <= margins[:-1]).to(margins.dtype).mean(dim=0)
