"""Triple Preference Optimization: contrast two responses, and imitate a third that is better than both."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import relu

from diffpref.core.annotations import NonNegative, Number, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.imitation import Normalization, imitation
from diffpref.objectives.pair_links import expected, logistic, per_token

__all__ = ["tpo_l", "tpo_triple"]

SIGNS: dict[str, Literal["-", "+"]] = {
    "policy_chosen_logps": "-",
    "policy_rejected_logps": "+",
    "policy_gold_logps": "-",
}


@objective(
    "tpo_triple",
    kind="pairwise",
    source="Saeidi et al., Triple Preference Optimization, arXiv:2405.16681",
    evidence="official",
    coupling="batch",
    coupled_by={"nll": ("token_mean_batch",)},
    signs=SIGNS,
    aliases=("triple_preference_optimization",),
)
def tpo_triple(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    policy_gold_logps: Tensor,
    preference: Tensor | None = None,
    gold_length: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=100.0),
    nll_weight: NonNegative = 0.5,
    nll: Normalization = scale(tokens="token_mean_batch", denoising="seq_sum"),
    link: Literal["sigmoid", "hinge", "ipo"] = "sigmoid",
) -> Tensor:
    r"""Compare the second best response with the worst, and imitate the best, without a reference.

    .. math:: \ell = -\log\sigma\big(\beta\,(\log\pi(x_w) - \log\pi(x_l))\big) + \alpha\,\mathrm{NLL}(x_\text{gold})

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy.
        policy_rejected_logps: (B,) the same for the rejected sample.
        policy_gold_logps: (B,) the same for the gold sample, which is better than both.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        gold_length: (B,) tokens of the gold response; needed for the means over tokens. No gradient.
        beta: inverse temperature. The default for denoisers is ours.
        nll_weight: alpha above; 0.5 to 1.
        nll: the tokens that the imitation is a mean over; ``token_mean_batch`` couples the records of a batch.
        link: how a difference becomes a loss: ``hinge`` is max(0, 1 - beta d), ``ipo`` is (d - 1 / (2 beta))^2, which
            has no fixed sign.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: lengths are needed and missing.

    Source: Saeidi et al., Triple Preference Optimization, 2024; code: sahsaeedi/triple-preference-optimization
    ``tpo_loss``, TRL ``experimental.tpo``.
    Reduces to: `cpo` where the gold sample is the chosen one.

    >>> import torch
    >>> logps = {f"policy_{k}_logps": torch.tensor([-v]) for k, v in (("chosen", 12.5), ("rejected", 14), ("gold", 6))}
    >>> round(tpo_triple(**logps, gold_length=torch.tensor([8])).item(), 6)
    0.995957
    """

    def compared(better: Tensor, worse: Tensor) -> Tensor:
        if link == "hinge":
            return relu(1 - beta * (better - worse))
        if link == "ipo":
            return (better - worse - 1 / (2 * beta)).square()
        return logistic(beta * (better - worse))

    imitated = imitation("tpo_triple", nll, policy_gold_logps, gold_length, None)
    return expected(compared, preference, policy_chosen_logps, policy_rejected_logps) + nll_weight * imitated


@objective(
    "tpo_l",
    kind="pairwise",
    source="Saeidi et al., Triple Preference Optimization, arXiv:2405.16681",
    evidence="official",
    coupling="batch",
    coupled_by={"nll": ("token_mean_batch",)},
    signs=SIGNS,
)
def tpo_l(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    policy_gold_logps: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    gold_length: Tensor | None = None,
    beta: Positive = scale(tokens=2.0, denoising=100.0),
    gamma: Number = 0.5,
    nll_weight: NonNegative = 0.5,
    nll: Normalization = scale(tokens="token_mean_batch", denoising="seq_sum"),
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Do as `tpo_triple` with mean tokens and a target margin, as SimPO compares.

    .. math:: \ell = -\log\sigma\Big(\beta \Big(\frac{\log\pi(x_w)}{n_w} - \frac{\log\pi(x_l)}{n_l}\Big) - \gamma\Big)
              + \alpha\,\mathrm{NLL}(x_\text{gold})

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy.
        policy_rejected_logps: (B,) the same for the rejected sample.
        policy_gold_logps: (B,) the same for the gold sample, which is better than both.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed with ``length_normalize``. No gradient.
        rejected_length: (B,) the same for the rejected response.
        gold_length: (B,) the same for the gold one; needed for the means over tokens.
        beta: inverse temperature. The default for denoisers is ours.
        gamma: target margin, in logits.
        nll_weight: alpha above.
        nll: the tokens that the imitation is a mean over; ``token_mean_batch`` couples the records of a batch.
        length_normalize: compare mean tokens. Denoisers' log-likelihoods are means already.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: lengths are needed and missing.

    Source: Saeidi et al., Triple Preference Optimization, 2024 (TPO-L); code: sahsaeedi/triple-preference-optimization.
    Reduces to: `simpo` at nll_weight=0; `tpo_triple` at gamma=0 without lengths.

    >>> import torch
    >>> logps = {f"policy_{k}_logps": torch.tensor([-v]) for k, v in (("chosen", 12.5), ("rejected", 14), ("gold", 6))}
    >>> lengths = {f"{k}_length": torch.tensor([v]) for k, v in (("chosen", 10), ("rejected", 12), ("gold", 8))}
    >>> round(tpo_l(**logps, **lengths).item(), 5)
    1.45604
    """
    chosen, rejected = per_token(
        "tpo_l", length_normalize, policy_chosen_logps, policy_rejected_logps, chosen_length, rejected_length
    )
    compared = expected(lambda better, worse: logistic(beta * (better - worse) - gamma), preference, chosen, rejected)
    return compared + nll_weight * imitation("tpo_l", nll, policy_gold_logps, gold_length, None)
