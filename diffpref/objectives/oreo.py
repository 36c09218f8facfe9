"""OREO: a policy and a value that agree along a whole solution, so that credit reaches its steps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.lists import filled

__all__ = ["oreo"]

STEEP = 20.0
"""Log-ratio below whose negative exp(-d) goes on as its tangent, so that it cannot overflow."""


@objective(
    "oreo",
    kind="token",
    source="Wang et al., arXiv:2412.16145, eq. 9 and 10; jwhj/OREO openrlhf/trainer/pcl_trainer.py",
    evidence="official",
    signs={},
    stops=("token_log_ratio", "policy_token_value"),
)
def oreo(
    *,
    token_log_ratio: Tensor,
    policy_token_value: Tensor,
    token_mask: Tensor,
    label: Tensor,
    token_start: Tensor | None = None,
    beta: Positive = scale(tokens=0.03, denoising=1500.0),
    kl_coefficient: NonNegative = 0.01,
    form: Literal["telescoped", "single_step", "trajectory"] = "telescoped",
    train: Literal["both", "policy", "value"] = "both",
    importance: bool = False,
) -> Tensor:
    r"""Make value and future log-ratio add up to the outcome, at every step of a solution.

    .. math:: \ell = \operatorname*{mean}_{t} \big(\beta\,[d_{t:t'} + \mathrm{sg}(D_{t'})] + \mathrm{sg}(V_t) - R\big)^2
              + \operatorname*{mean}_{t} \big(\beta\,\mathrm{sg}(D_t) + V_t - R\big)^2
              + c \operatorname*{mean}_{\text{units}} \big(e^{-d} - 1 + d\big)

    over the first units t of steps, with t' that of the next one, :math:`D_t = \sum_{i \ge t} d_i` and
    :math:`d_{t:t'} = D_t - D_{t'}`. The first term trains the policy: each step learns from its own units, with the
    rest as a constant. The second trains the value.

    Args:
        token_log_ratio: (B, T) d, policy minus reference log-likelihood of each unit.
        policy_token_value: (B, T) V, what the value head says before each unit.
        token_mask: (B, T) 1 where a unit is there.
        label: (B,) outcome R: 1 right, 0 wrong. No gradient.
        token_start: (B, T) 1 at the first unit of each step, such as a line of a solution; where the batch has no such
            column every unit is a step (in the code ``dro``).
        beta: strength of the pull to the reference.
        kl_coefficient: c, of the estimate of KL(policy || reference). The scripts take the KL over the whole vocabulary
            instead: set 0 and add such a term. Below d = -20 the exponential goes on as its tangent.
        form: ``"single_step"``: ``V_t - V_t' + beta * d_{t:t'}``, minus R at the last step, in place of the sums;
            ``"trajectory"``: only the first step, with gradient through all units.
        train: ``"policy"`` and ``"value"`` leave out the other's term; for two learning rates give the value head its
            own.
        importance: weigh the policy's term by ``exp(min(sum of d, 1))``, without gradient.

    Returns:
        (B,) non-negative losses, unreduced; a row without a step counts only in the last term.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Wang et al., Offline Reinforcement Learning for LLM Multi-Step Reasoning, 2024; constants follow the
    official code. Despite its name the soft Bellman equation is used in this telescoped, Monte-Carlo form.
    Reduces to: `sppo`-like regression of the log-ratio onto ``(R - V) / beta`` for samples of one unit.

    >>> import torch
    >>> d, value, ones = torch.tensor([[0.4, -0.1, 0.2]]), torch.tensor([[0.4, 0.55, 0.7]]), torch.ones(1, 3)
    >>> one = {"token_log_ratio": d, "policy_token_value": value, "token_mask": ones, "label": torch.ones(1)}
    >>> round(oreo(**one, train="value", kl_coefficient=0.0).item(), 5)
    0.20949
    """
    there = token_mask > 0
    starts = there if token_start is None else there & (filled(token_start, there) > 0)
    ratio, value = filled(token_log_ratio, there), filled(policy_token_value, there)
    ahead = ratio.flip(1).cumsum(dim=1).flip(1)  # D_t
    number = torch.arange(token_mask.shape[1], device=token_mask.device).expand(token_mask.shape)
    none = torch.full_like(number[:, :1], token_mask.shape[1])
    at_or_after = torch.where(starts, number, none).flip(1).cummin(dim=1).values.flip(1)
    following = torch.cat([at_or_after[:, 1:], none], dim=1)  # t', or T after the last step
    zero = torch.zeros_like(token_mask[:, :1])
    rest = torch.cat([ahead, zero], dim=1).gather(1, following)
    if form == "telescoped":
        gap, paid = ahead - rest + rest.detach(), label.unsqueeze(1).expand(token_mask.shape)
    elif form == "trajectory":
        gap, paid = ahead, label.unsqueeze(1).expand(token_mask.shape)
        starts = starts & (starts.cumsum(dim=1) == 1)
    else:
        gap, paid = ahead - rest, filled(label.unsqueeze(1), following == none)
        value = value - torch.cat([value, zero], dim=1).gather(1, following)
    count = starts.sum(dim=1).clamp(min=1)
    policy = filled((beta * gap + value.detach() - paid).square(), starts).sum(dim=1) / count
    critic = filled((beta * gap.detach() + value - paid).square(), starts).sum(dim=1) / count
    if importance:
        policy = policy * ratio.sum(dim=1).clamp(max=1).exp().detach()
    steep = (-ratio - STEEP).clamp(min=0)
    divergence = (-ratio).clamp(max=STEEP).exp() * (1 + steep) - 1 + ratio
    pull = kl_coefficient * divergence.sum(dim=1) / there.sum(dim=1)
    if train == "policy":
        return policy + pull
    return critic if train == "value" else policy + critic + pull
