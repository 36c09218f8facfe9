"""Losses on the policy's own log-likelihoods: CPO, SimPO and AlphaPO."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import relu

from diffpref.core.annotations import HalfProbability, NonNegative, Number, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.imitation import Normalization, imitation
from diffpref.objectives.pair_links import expected, logistic, per_token

__all__ = ["alphapo", "cpo", "simpo"]

EXPONENT = 60.0
"""AlphaPO's exponent goes no higher, so that float32 holds the reward times any beta."""


@objective(
    "cpo",
    kind="pairwise",
    source="Xu et al., Contrastive Preference Optimization, arXiv:2401.08417, eq. 5",
    evidence="official",
    coupling="batch",
    coupled_by={"nll": ("token_mean_batch",)},
    signs={},
)
def cpo(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=100.0),
    label_smoothing: HalfProbability = 0.0,
    nll_weight: NonNegative = 1.0,
    nll: Normalization = scale(tokens="token_mean_batch", denoising="seq_sum"),
    link: Literal["sigmoid", "hinge", "ipo"] = "sigmoid",
    length_normalize: bool = False,
) -> Tensor:
    r"""Compare log-likelihoods as DPO does with a uniform reference, and imitate the chosen sample.

    .. math:: \ell = -\log\sigma\big(\beta\,(\log\pi(x_w) - \log\pi(x_l))\big) + \alpha\,\mathrm{NLL}(x_w)

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy.
        policy_rejected_logps: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]: the label of the comparison, and the weight of the imitation; 1
            where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response. No gradient.
        rejected_length: (B,) the same for the rejected response; needed with ``length_normalize``.
        beta: inverse temperature. The default for denoisers is ours.
        label_smoothing: assumed probability that a label is wrong, in [0, 0.5); of the sigmoid link.
        nll_weight: alpha above.
        nll: the tokens that the imitation is a mean over; ``token_mean_batch`` couples the records of a batch.
        link: how a difference becomes a loss: ``hinge`` is max(0, 1 - beta d), ``ipo`` is (d - 1 / (2 beta))^2.
        length_normalize: compare mean tokens, as TRL does with ``ipo``.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: lengths are needed and missing.

    Source: Xu et al., Contrastive Preference Optimization, ICML 2024, eq. 5; code: fe1ixxu/ALMA (without the adaptive
    rejection penalty of X-ALMA), TRL ``CPOTrainer``. TRL's ``loss_type="simpo"`` is `simpo` composed with `nll`.
    Reduces to: `dpo` with a uniform reference at nll_weight=0.

    >>> import torch
    >>> logps = {"policy_chosen_logps": torch.tensor([-12.5]), "policy_rejected_logps": torch.tensor([-14.0])}
    >>> round(cpo(**logps, nll_weight=0.0, nll="seq_sum").item(), 6)
    0.620957
    """
    chosen, rejected = per_token(
        "cpo", length_normalize, policy_chosen_logps, policy_rejected_logps, chosen_length, rejected_length
    )

    def compared(better: Tensor, worse: Tensor) -> Tensor:
        if link == "hinge":
            return relu(1 - beta * (better - worse))
        if link == "ipo":
            return (better - worse - 1 / (2 * beta)).square()
        return logistic(beta * (better - worse), label_smoothing=label_smoothing)

    imitated = imitation("cpo", nll, policy_chosen_logps, chosen_length, preference)
    return expected(compared, preference, chosen, rejected) + nll_weight * imitated


@objective(
    "simpo",
    kind="pairwise",
    source="Meng et al., SimPO: Simple Preference Optimization with a Reference-Free Reward, arXiv:2405.14734, eq. 6",
    evidence="official",
)
def simpo(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    beta: Positive = scale(tokens=2.0, denoising=100.0),
    gamma_beta_ratio: NonNegative = scale(tokens=0.25, denoising=0.005),
    label_smoothing: HalfProbability = 0.0,
    link: Literal["sigmoid", "hinge"] = "sigmoid",
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Ask that the mean token of the chosen response be likelier than that of the rejected one by a margin.

    .. math:: \ell = -\log\sigma(z), \qquad
              z = \beta \left(\frac{\log\pi(x_w)}{n_w} - \frac{\log\pi(x_l)}{n_l} - \rho\right)

    No reference holds the policy back: learning rates are small (3e-7 to 1e-6). With soft labels the loss is the
    expectation over the label.

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy, summed over tokens.
        policy_rejected_logps: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed with ``length_normalize``. No gradient.
        rejected_length: (B,) the same for the rejected response.
        beta: 2 to 2.5 in the first configurations, 10 in the later ones. The default for denoisers is ours.
        gamma_beta_ratio: rho above, the target margin over beta; 0.1 to 0.8 in the official configurations.
        label_smoothing: assumed probability that a label is wrong, in [0, 0.5); of the sigmoid link.
        link: ``hinge`` is max(0, 1 - z).
        length_normalize: divide by the lengths. Denoisers' log-likelihoods are means already.

    Returns:
        (B,) losses, unreduced; ln(1 + e^(beta rho)) where the means are equal.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: ``length_normalize`` without lengths.

    Source: Meng, Xia and Chen, SimPO, NeurIPS 2024, eq. 6; code: princeton-nlp/SimPO ``simpo_loss``. The official
    ``sft_weight`` is ``[{simpo: {}}, {nll: {coefficient: ...}}]``.
    Reduces to: `cpo` with means and nll_weight=0, at gamma_beta_ratio=0.

    >>> import torch
    >>> logps = {"policy_chosen_logps": torch.tensor([-12.5]), "policy_rejected_logps": torch.tensor([-14.0])}
    >>> lengths = {"chosen_length": torch.tensor([10.0]), "rejected_length": torch.tensor([12.0])}
    >>> round(simpo(**logps, **lengths, gamma_beta_ratio=0.5).item(), 6)
    1.437764
    """
    chosen, rejected = per_token(
        "simpo", length_normalize, policy_chosen_logps, policy_rejected_logps, chosen_length, rejected_length
    )

    def with_margin(better: Tensor, worse: Tensor) -> Tensor:
        margin = beta * (better - worse - gamma_beta_ratio)
        return relu(1 - margin) if link == "hinge" else logistic(margin, label_smoothing=label_smoothing)

    return expected(with_margin, preference, chosen, rejected)


@objective(
    "alphapo",
    kind="pairwise",
    source="Gupta et al., AlphaPO: Reward Shape Matters for LLM Alignment, arXiv:2501.03884",
    evidence="secondary",
)
def alphapo(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    beta: Positive = scale(tokens=2.0, denoising=100.0),
    gamma: NonNegative = 0.5,
    alpha: Number = 0.25,
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""SimPO with a bent reward, which changes how much unlikely responses matter.

    .. math:: \ell = -\log\sigma\big(\beta\,(r_w - r_l) - \gamma\big), \qquad
              r = \frac{1 - e^{-\alpha a}}{\alpha}, \quad a = \frac{\log\pi(x)}{n}

    With soft labels the loss is the expectation over the label.

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy, summed over tokens.
        policy_rejected_logps: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed with ``length_normalize``. No gradient.
        rejected_length: (B,) the same for the rejected response.
        beta: as of `simpo`.
        gamma: the target margin itself, in logits.
        alpha: bend of the reward; 0 is none. Exponents above 60 are taken for 60.
        length_normalize: divide by the lengths. Denoisers' log-likelihoods are means already.

    Returns:
        (B,) losses, unreduced; ln(1 + e^gamma) where the means are equal.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: ``length_normalize`` without lengths.

    Source: Gupta et al., AlphaPO, 2025; code: TRL ``CPOTrainer``, ``loss_type="alphapo"``.
    Reduces to: `simpo` at alpha=0 with gamma = beta * gamma_beta_ratio.

    >>> import torch
    >>> logps = {"policy_chosen_logps": torch.tensor([-12.5]), "policy_rejected_logps": torch.tensor([-14.0])}
    >>> lengths = {"chosen_length": torch.tensor([10.0]), "rejected_length": torch.tensor([12.0])}
    >>> round(alphapo(**logps, **lengths).item(), 6)
    1.120263
    """
    chosen, rejected = per_token(
        "alphapo", length_normalize, policy_chosen_logps, policy_rejected_logps, chosen_length, rejected_length
    )

    def reward(mean: Tensor) -> Tensor:
        return mean if alpha == 0 else -torch.expm1((-alpha * mean).clamp(max=EXPONENT)) / alpha

    return expected(
        lambda better, worse: logistic(beta * (reward(better) - reward(worse)) - gamma), preference, chosen, rejected
    )
