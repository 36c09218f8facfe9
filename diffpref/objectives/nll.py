"""Negative log-likelihood of the chosen sample: supervised fine-tuning, alone or added to another objective."""

from __future__ import annotations

from torch import Tensor

from diffpref.core.contracts import Terms
from diffpref.objectives.base import objective

__all__ = ["nll"]


@objective(
    "nll",
    kind="supervised",
    source="maximum likelihood; SalesforceAIResearch/DiffusionDPO train.py --sft",
    evidence="official",
    aliases=("sft",),
    published=("tokens", "denoising"),
)
def nll(*, policy_chosen_logps: Tensor, preference: Tensor | None = None) -> Tensor | Terms:
    r"""Make the chosen sample more likely, without a reference.

    .. math:: \ell = -\log \pi_\theta(x_w)

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy. For a denoiser that is -0.5
            times its mean squared error, so the loss is half the usual denoising loss; ``coefficient: 2`` gives the
            official ``--sft`` loss.
        preference: (B,) P(chosen is better) in [0, 1]: the weight of the record, so that an uncertain choice is
            imitated less; 1 where the batch has no such column. No gradient.

    Returns:
        (B,) losses, unreduced, with the preferences as weights where they are given.

    Source: maximum likelihood; DiffusionDPO ``train.py --sft`` (mean squared error, without the factor 0.5).
    Reduces to: the denoising loss of pretraining, times 0.5.

    >>> import torch
    >>> nll(policy_chosen_logps=torch.tensor([-12.5])).item()
    12.5
    """
    return -policy_chosen_logps if preference is None else Terms(-policy_chosen_logps, weights=preference)
