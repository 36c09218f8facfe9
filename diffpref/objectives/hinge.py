"""Hinge losses on a pair: SLiC-HF on log-likelihoods, RSO on log-ratios."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import expected, logistic

__all__ = ["rso", "rso_hinge", "rso_sigmoid_norm", "slic_hf", "slic_hf_target"]


@objective(
    "slic_hf",
    kind="pairwise",
    source="Zhao et al., SLiC-HF: Sequence Likelihood Calibration with Human Feedback, arXiv:2305.10425",
    evidence="official",
    aliases=("slic",),
)
def slic_hf(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    preference: Tensor | None = None,
    delta: Positive = scale(tokens=1.0, denoising=0.01),
    nll_weight: NonNegative = 0.1,
) -> Tensor:
    r"""Make the chosen sample more likely than the rejected one by a margin, and keep it likely; no reference.

    .. math:: \ell = \max(0,\; \delta - \log\pi(x_w) + \log\pi(x_l)) - \lambda \log\pi(x_w)

    With soft labels the hinge is its expectation over the label, and the second term is weighted by the preference.

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy.
        policy_rejected_logps: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        delta: margin in log-likelihood. 1 nat is little for long texts. The default for denoisers is ours.
        nll_weight: lambda above.

    Returns:
        (B,) losses, unreduced. At nll_weight=0: delta where both are equally likely, 0 past the margin.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Zhao et al., SLiC-HF, 2023. Code: ContextualAI/HALOs ``SLiCTrainer``, whose target is the chosen sample; the
    paper's regulariser takes another target sequence: `slic_hf_target`.
    Reduces to: ``delta`` times `rso_hinge` with beta = 1/delta, at nll_weight=0.

    >>> import torch
    >>> logps = {"policy_chosen_logps": torch.tensor([-20.0]), "policy_rejected_logps": torch.tensor([-18.5])}
    >>> slic_hf(**logps).item()
    4.5
    """
    hinge = expected(
        lambda better, worse: relu(delta - better + worse), preference, policy_chosen_logps, policy_rejected_logps
    )
    imitation = policy_chosen_logps if preference is None else preference * policy_chosen_logps
    return hinge - nll_weight * imitation


@objective(
    "slic_hf_target",
    kind="pairwise",
    source="Zhao et al., SLiC-HF: Sequence Likelihood Calibration with Human Feedback, arXiv:2305.10425",
    evidence="secondary",
    signs={"policy_chosen_logps": "-", "policy_rejected_logps": "+", "policy_gold_logps": "-"},
)
def slic_hf_target(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    policy_gold_logps: Tensor,
    preference: Tensor | None = None,
    delta: Positive = scale(tokens=1.0, denoising=0.01),
    nll_weight: NonNegative = 0.1,
) -> Tensor:
    r"""SLiC-HF as its paper regularises it: by the likelihood of a third sample, the target of fine-tuning.

    .. math:: \ell = \max(0,\; \delta - \log\pi(x_w) + \log\pi(x_l)) - \lambda \log\pi(x_\text{gold})

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy.
        policy_rejected_logps: (B,) the same for the rejected sample.
        policy_gold_logps: (B,) the same for the target.
        preference: (B,) P(chosen is better) in [0, 1], over which the hinge is the expectation; 1 where the batch has
            no such column. No gradient.
        delta: margin in log-likelihood.
        nll_weight: lambda above.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Zhao et al., SLiC-HF, 2023, as quoted by Liu et al., Statistical Rejection Sampling Improves Preference
    Optimization, ICLR 2024, eq. 1.
    Reduces to: `slic_hf` where the target is the chosen sample.

    >>> import torch
    >>> logps = {"policy_chosen_logps": torch.tensor([-20.0]), "policy_rejected_logps": torch.tensor([-18.5])}
    >>> slic_hf_target(**logps, policy_gold_logps=torch.tensor([-10.0])).item()
    3.5
    """
    hinge = expected(
        lambda better, worse: relu(delta - better + worse), preference, policy_chosen_logps, policy_rejected_logps
    )
    return hinge - nll_weight * policy_gold_logps


@objective(
    "rso",
    kind="pairwise",
    source="Liu et al., Statistical Rejection Sampling Improves Preference Optimization, arXiv:2309.06657, eq. 10",
    evidence="paper",
    aliases=("hinge", "hinge_norm", "rso_hinge_norm"),
)
def rso(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.05, denoising=2500.0),
) -> Tensor:
    r"""Ask for an implicit-reward margin of 1, and for nothing beyond it (hinge-norm).

    .. math:: \ell = \max(0,\; 1 - \gamma\,(\Delta_w - \Delta_l))

    The pairs come from statistical rejection sampling in the paper; the loss takes any. With soft labels it is the
    expectation over the label.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: gamma above, which the paper keeps apart from the temperature (beta there) of the sampling.

    Returns:
        (B,) non-negative losses, unreduced; 1 where the margin is 0, 0 without gradient once it is met.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Liu et al., Statistical Rejection Sampling Improves Preference Optimization, ICLR 2024, eq. 10. TRL's
    ``loss_type="hinge"`` is this loss, and not SLiC's.
    Reduces to: `rso_hinge` where the reference finds both samples equally likely.

    >>> import torch
    >>> loss = rso(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]), beta=0.05)
    >>> round(loss.item(), 6)
    0.935
    """
    return expected(
        lambda better, worse: relu(1 - beta * (better - worse)), preference, chosen_log_ratio, rejected_log_ratio
    )


@objective(
    "rso_sigmoid_norm",
    kind="pairwise",
    source="Liu et al., Statistical Rejection Sampling Improves Preference Optimization, arXiv:2309.06657, eq. 8",
    evidence="paper",
    same_as="dpo",
)
def rso_sigmoid_norm(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.05, denoising=2500.0),
) -> Tensor:
    r"""The logistic loss of rejection-sampled pairs: `dpo` with RSO's default.

    .. math:: \ell = -\log\sigma(\gamma\,(\Delta_w - \Delta_l))

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: gamma above.

    Returns:
        (B,) positive losses, unreduced; ln 2 where the margin is 0.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Liu et al., Statistical Rejection Sampling Improves Preference Optimization, ICLR 2024, eq. 8.
    Reduces to: `dpo` at the same beta.

    >>> import torch
    >>> loss = rso_sigmoid_norm(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]))
    >>> round(loss.item(), 6)
    0.661175
    """
    return logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)


@objective(
    "rso_hinge",
    kind="pairwise",
    source="Liu et al., Statistical Rejection Sampling Improves Preference Optimization, arXiv:2309.06657, eq. 9",
    evidence="paper",
)
def rso_hinge(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.05, denoising=100.0),
) -> Tensor:
    r"""Hinge on the difference of log-likelihoods, without a reference.

    .. math:: \ell = \max(0,\; 1 - \gamma\,(\log\pi(x_w) - \log\pi(x_l)))

    The paper reports that it can be hacked by the reward model more easily than `rso`.

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy.
        policy_rejected_logps: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: gamma above. The default for denoisers is ours.

    Returns:
        (B,) non-negative losses, unreduced; 1 where both are equally likely.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Liu et al., Statistical Rejection Sampling Improves Preference Optimization, ICLR 2024, eq. 9.
    Reduces to: `slic_hf` without its regulariser, times ``beta``, with delta = 1/beta.

    >>> import torch
    >>> logps = {"policy_chosen_logps": torch.tensor([-20.0]), "policy_rejected_logps": torch.tensor([-18.5])}
    >>> round(rso_hinge(**logps).item(), 6)
    1.075
    """
    return expected(
        lambda better, worse: relu(1 - beta * (better - worse)), preference, policy_chosen_logps, policy_rejected_logps
    )
