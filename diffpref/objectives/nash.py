"""Games of preferences: steps towards a policy that no other is preferred to."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpref.core.annotations import NonNegative, Positive, Probability, scale
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective
from diffpref.objectives.lists import filled
from diffpref.objectives.pair_links import logistic

__all__ = ["dno", "inpo_nash", "nash_md", "nash_md_per_token"]


@objective(
    "dno",
    kind="pairwise",
    source="Rosset et al., arXiv:2404.03715, Algorithm 1",
    evidence="secondary",
    signs={},
)
def dno(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_win_rate: Tensor,
    rejected_win_rate: Tensor,
    eta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Match the odds of a pair under the policy to those that its win rates give.

    .. math:: \ell = -s \log\sigma(m) - (1 - s) \log\sigma(-m), \qquad m = \eta\,(\Delta_w - \Delta_l), \qquad
              s = \sigma(p_w - p_l)

    Win rates differ by less than 1, so that s lies between 0.27 and 0.73: weak targets. What the paper ran at scale is
    DPO on pairs with a large gap (DNO-Prct), with the previous iterate as the reference.

    Args:
        chosen_log_ratio: (B,) log-likelihood of the chosen sample under the policy minus that under the previous
            iterate.
        rejected_log_ratio: (B,) the same for the rejected sample.
        chosen_win_rate: (B,) mean probability that the chosen sample beats a sample of the previous iterate.
        rejected_win_rate: (B,) the same for the rejected sample.
        eta: inverse temperature, DPO's beta.

    Returns:
        (B,) positive losses, unreduced; ln 2 where the policy is the previous iterate.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Rosset et al., Direct Nash Optimization, 2024, Algorithm 1, as others report it: a regression written as
    binary cross-entropy. There is no official code.
    Reduces to: `dpo` with preference ``sigmoid(p_w - p_l)`` and beta = eta.

    >>> import torch
    >>> one = {"chosen_log_ratio": torch.tensor([0.6]), "rejected_log_ratio": torch.tensor([-0.4])}
    >>> rates = {"chosen_win_rate": torch.tensor([0.7]), "rejected_win_rate": torch.tensor([0.3])}
    >>> round(dno(**one, **rates, eta=0.5).item(), 6)
    0.674733
    """
    margin = eta * (chosen_log_ratio - rejected_log_ratio)
    return logistic(margin, torch.sigmoid(chosen_win_rate - rejected_win_rate))


@objective(
    "inpo_nash",
    kind="pairwise",
    source="Zhang et al., arXiv:2407.00617, eq. 11",
    evidence="secondary",
    signs={},
)
def inpo_nash(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    previous_chosen_log_ratio: Tensor,
    previous_rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    eta: Positive = scale(tokens=0.0075, denoising=375.0),
    tau: NonNegative = scale(tokens=0.0025, denoising=125.0),
) -> Tensor:
    r"""Regress the log-ratio difference against two anchors at once: the reference and the previous iterate.

    .. math:: \ell = \Big(g_\theta - \frac{\tau}{\eta}\, g_\mathrm{ref} - \frac{\eta - \tau}{\eta}\, g_t
              - \frac{P - \frac12}{\eta}\Big)^2, \qquad g = \log\pi(x_w) - \log\pi(x_l)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        previous_chosen_log_ratio: (B,) log-likelihood of the chosen sample under the previous iterate, which made the
            samples, minus that under the reference.
        previous_rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        eta: step size of the game; smaller asks for a larger difference.
        tau: strength of the reference, at most eta.

    Returns:
        (B,) non-negative losses, unreduced; 1 / (4 eta^2) where all three models agree.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: tau is larger than eta.

    Source: Zhang et al., Iterative Nash Policy Optimization, ICLR 2025, as an independent trainer reproduces it.
    eta and tau are from memory. It is not the DDIM-InPO of diffusion models (`ddim_inpo`).
    Reduces to: `ipo_md` with tau = eta on the reference at tau=eta, and on the previous iterate at tau=0.

    >>> import torch
    >>> policy = {"chosen_log_ratio": torch.tensor([1.5]), "rejected_log_ratio": torch.tensor([0.0])}
    >>> before = {"previous_chosen_log_ratio": torch.tensor([0.5]), "previous_rejected_log_ratio": torch.zeros(1)}
    >>> round(inpo_nash(**policy, **before, eta=0.2, tau=0.05).item(), 6)
    1.890625
    """
    if tau > eta:
        raise ConfigError(f"inpo_nash: tau must be at most eta, got tau = {tau} and eta = {eta}")
    difference = chosen_log_ratio - rejected_log_ratio
    previous = previous_chosen_log_ratio - previous_rejected_log_ratio
    target = 0.5 / eta if preference is None else (preference - 0.5) / eta
    # With log-ratios against the reference its own share drops out: g - tau/eta g_ref - (1 - tau/eta) g_t.
    return (difference - (1 - tau / eta) * previous - target).square()


@objective(
    "nash_md",
    kind="pointwise",
    source="Munos et al., arXiv:2312.00886, section 7; zhourunlong/EGPO nash_md_pg",
    evidence="official",
    aliases=("nash_md_pg",),
    signs={},
    stops=("log_ratio",),
)
def nash_md(
    *,
    policy_logps: Tensor,
    log_ratio: Tensor,
    win_rate: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    baseline: Probability = 0.5,
) -> Tensor:
    r"""Follow the policy gradient of winning against a mixture of the policy and the reference.

    .. math:: \ell = -\big(P - b - \beta\,\mathrm{sg}(\Delta)\big) \log\pi_\theta(y)

    The value means nothing, only the gradient does: it raises what wins more often than not, and pulls back to the
    reference.

    Args:
        policy_logps: (B,) log-likelihood of a sample of the policy.
        log_ratio: (B,) the same minus the reference's; a constant: no gradient.
        win_rate: (B,) probability that the sample beats a sample of the geometric mixture of reference and policy.
        beta: strength of the pull to the reference.
        baseline: b; it leaves the expected gradient as it is and lowers its variance. 0 in the code of EGPO.

    Returns:
        (B,) losses of any sign, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Munos et al., Nash Learning from Human Feedback, ICML 2024, section 7; the value with baseline 0, weighted
    by the policy's probabilities, is that of the code of EGPO (``nash_md_pg``).
    Reduces to: REINFORCE with reward ``P - beta * log_ratio``; `nash_md_per_token` for samples of one token.

    >>> import torch
    >>> one = {"policy_logps": torch.tensor([-2.0]), "log_ratio": torch.tensor([1.0]), "win_rate": torch.tensor([0.9])}
    >>> round(nash_md(**one, beta=0.1).item(), 4)
    0.6
    """
    return -(win_rate - baseline - beta * log_ratio.detach()) * policy_logps


@objective(
    "nash_md_per_token",
    kind="token",
    source="TRL NashMDTrainer _compute_losses",
    evidence="official",
    signs={},
    stops=("token_log_ratio",),
)
def nash_md_per_token(
    *,
    policy_token_logps: Tensor,
    token_log_ratio: Tensor,
    token_mask: Tensor,
    win_rate: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Nash-MD as TRL has it: each token's pull to the reference acts on that token alone.

    .. math:: \ell = \beta \sum_t \mathrm{sg}(\Delta_t) \log\pi_\theta(y_t)
              - (P - \tfrac12) \sum_t \log\pi_\theta(y_t)

    Without the products of different tokens this is not the gradient of the sequence's KL; `nash_md` is.

    Args:
        policy_token_logps: (B, T) log-likelihood of each unit of a sample of the policy.
        token_log_ratio: (B, T) the same minus the reference's; a constant: no gradient.
        token_mask: (B, T) 1 where a unit is there.
        win_rate: (B,) probability that the sample beats a sample of the mixture.
        beta: strength of the pull to the reference.

    Returns:
        (B,) losses of any sign, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: TRL, ``trl/experimental/nash_md``.
    Reduces to: `nash_md` for samples of one token.

    >>> import torch
    >>> logps, ratios, ones = torch.tensor([[-1.0, -0.5]]), torch.tensor([[0.2, -0.1]]), torch.ones(1, 2)
    >>> tokens = {"policy_token_logps": logps, "token_log_ratio": ratios, "token_mask": ones}
    >>> round(nash_md_per_token(**tokens, win_rate=torch.tensor([0.8]), beta=0.1).item(), 4)
    0.435
    """
    there = token_mask > 0
    logps, pull = filled(policy_token_logps, there), filled(token_log_ratio.detach(), there)
    return beta * (pull * logps).sum(dim=1) - (win_rate - 0.5) * logps.sum(dim=1)
