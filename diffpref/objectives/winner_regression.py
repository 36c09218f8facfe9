"""CRPO: DPO with the winner's own denoising error added, so that it cannot grow."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective

__all__ = ["crpo"]


@objective(
    "crpo",
    kind="pairwise",
    source="Hung et al., TangoFlux: Super Fast and Faithful Text to Audio Generation with Flow Matching and"
    " Clap-Ranked Preference Optimization, arXiv:2412.21037",
    evidence="official",
    aliases=("clap_ranked",),
    published=("denoising",),
)
def crpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    policy_chosen_logps: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=2000.0),
    sft_weight: NonNegative = scale(tokens=1.0, denoising=2.0),
) -> Tensor:
    r"""Compare two samples and go on learning the chosen one, whose likelihood plain DPO lets sink.

    .. math:: \ell = -\log\sigma(\beta\,(\Delta_w - \Delta_l)) - \lambda \log \pi_\theta(x_w)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy.
        beta: as in `dpo`.
        sft_weight: lambda above. A denoiser's log-likelihood is -0.5 times its error, so 2 adds the whole error of
            the winner, as published.

    Returns:
        (B,) losses, unreduced; ln 2 plus the winner's error where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Hung et al., TangoFlux, 2024; declare-lab/TangoFlux ``model.py``.
    Reduces to: `dpo` without the second term; the composition of `dpo` and `nll` otherwise.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(crpo(**ratios, policy_chosen_logps=torch.tensor([-0.25]), beta=0.1, sft_weight=2.0).item(), 6)
    1.130258
    """
    return -logsigmoid(beta * (chosen_log_ratio - rejected_log_ratio)) - sft_weight * policy_chosen_logps
