"""Regularized Preference Optimization: DPO and imitation of the chosen sample as one loss."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.imitation import imitation
from diffpref.objectives.pair_links import logistic

__all__ = ["rpo"]


@objective(
    "rpo",
    kind="pairwise",
    source="Liu et al., Provably Mitigating Overoptimization in RLHF, arXiv:2405.16436",
    evidence="official",
    coupling="batch",
    coupled_by={"nll": ("token_mean_batch",)},
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+", "policy_chosen_logps": "-"},
)
def rpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    policy_chosen_logps: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    beta: Positive = scale(tokens=0.01, denoising=500.0),
    nll_weight: NonNegative = 0.005,
    nll: Literal["token_mean_batch", "token_mean_seq", "seq_sum", "paper"] = scale(
        tokens="token_mean_batch", denoising="seq_sum"
    ),
) -> Tensor:
    r"""Compare the pair as DPO does, and keep the chosen sample likely, against over-optimisation.

    .. math:: \ell = -\log\sigma\big(\beta\,(\Delta_w - \Delta_l)\big) + \eta\,\mathrm{NLL}(x_w)

    Iterative Reasoning PO is this with nll_weight=1 and ``nll="token_mean_seq"``.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy.
        preference: (B,) P(chosen is better) in [0, 1]: the label of the comparison, and the weight of the imitation; 1
            where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed for the means over tokens. No gradient.
        beta: as of `dpo`.
        nll_weight: eta above.
        nll: the tokens that the imitation is a mean over; they differ by factors of hundreds. ``token_mean_batch``
            couples the records of a batch (compose `dpo` with `nll` to spare the second forward of accumulation);
            ``paper`` is ``beta * seq_sum``.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: lengths are needed and missing.

    Source: Liu et al., Provably Mitigating Overoptimization in RLHF: Your SFT Loss is Implicitly an Adversarial
    Regularizer, NeurIPS 2024; code: TRL ``loss_type=["sigmoid", "sft"]``, once ``rpo_alpha``. The place of the paper's
    constant is from memory.
    Reduces to: `dpo` at nll_weight=0.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(rpo(**ratios, policy_chosen_logps=torch.tensor([-12.5]), nll="seq_sum").item(), 6)
    0.749168
    """
    compared = logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)
    if nll == "paper":
        return compared + nll_weight * beta * imitation("rpo", "seq_sum", policy_chosen_logps, None, preference)
    return compared + nll_weight * imitation("rpo", nll, policy_chosen_logps, chosen_length, preference)
