"""What tells a preference data set, or a policy trained on one, from a healthy one: numbers, without gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.errors import ShapeError

__all__ = [
    "ches_score",
    "gradient_ratio",
    "idealised_margin",
    "ranking_accuracy",
    "ranking_loss_bound",
]


def ranking_accuracy(
    *,
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
) -> Tensor:
    """Return (B,) 1 where a model finds the chosen sample at least as likely as the rejected one, else 0.

    Unlike the accuracy of implicit rewards it asks the model alone, without its reference. Most tuned models lie below
    0.6 (Chen et al., arXiv:2405.19534).

    Args:
        chosen_logps: (B,) log-likelihood of the chosen sample under the model.
        rejected_logps: (B,) the same of the rejected sample.
        chosen_length: (B,) with ``rejected_length``: compare log-likelihoods a token.
        rejected_length: (B,).

    Raises:
        ShapeError: one length without the other.
    """
    if (chosen_length is None) != (rejected_length is None):
        raise ShapeError("ranking_accuracy: chosen_length and rejected_length go together")
    if chosen_length is not None and rejected_length is not None:
        chosen_logps, rejected_logps = chosen_logps / chosen_length, rejected_logps / rejected_length
    return (chosen_logps >= rejected_logps).to(chosen_logps.dtype).detach()


def idealised_margin(
    *, reference_chosen_logps: Tensor, reference_rejected_logps: Tensor, preference: Tensor, beta: float
) -> Tensor:
    """Return (B,) log p(chosen) - log p(rejected) under the perfect optimum of DPO.

    Where it is below 0 even that ranks the pair wrongly: the mean of ``>= 0`` is the idealised ranking accuracy.

    Args:
        reference_chosen_logps: (B,) log-likelihood of the chosen sample under the reference.
        reference_rejected_logps: (B,) the same of the rejected sample.
        preference: (B,) share of raters who prefer the chosen sample, within (0, 1).
        beta: of the objective.

    Source: Chen et al., Preference Learning Algorithms Do Not Learn Preference Rankings, arXiv:2405.19534, theorem 3.1.

    >>> import torch
    >>> logps = {"reference_chosen_logps": torch.tensor([-3.0]), "reference_rejected_logps": torch.tensor([-2.0])}
    >>> round(idealised_margin(**logps, preference=torch.tensor([0.7]), beta=0.1).item(), 4)
    7.473
    """
    return (reference_chosen_logps - reference_rejected_logps + torch.logit(preference) / beta).detach()


def ranking_loss_bound(*, reference_chosen_logps: Tensor, reference_rejected_logps: Tensor, beta: float) -> Tensor:
    """Return (B,) the DPO loss below which the policy ranks the pair rightly, by likelihood alone.

    Args:
        reference_chosen_logps: (B,) log-likelihood of the chosen sample under the reference.
        reference_rejected_logps: (B,) the same of the rejected sample.
        beta: of the objective.
    """
    return -logsigmoid(beta * (reference_rejected_logps - reference_chosen_logps)).detach()


def ches_score(
    *,
    chosen_hidden: Tensor,
    rejected_hidden: Tensor,
    chosen_token_mask: Tensor,
    rejected_token_mask: Tensor,
    length_normalize: bool = False,
) -> Tensor:
    """Return (B,) centred hidden embedding similarity: the larger, the likelier that training on the pair makes the
    chosen response less likely. Leave out the highest before training.

    Args:
        chosen_hidden: (B, T, D) last hidden states of the chosen sequence.
        rejected_hidden: (B, T', D) the same of the rejected one.
        chosen_token_mask: (B, T) 1 from the last token of the prompt to the last but one of the response: the states
            that predict the response. What is elsewhere does not enter; the released code relies on zeros there.
        rejected_token_mask: (B, T') the same for the rejected one.
        length_normalize: divide the sums by their numbers of states.

    Raises:
        ShapeError: hidden states and masks do not fit.

    Source: Razin et al., Unintentional Unalignment, arXiv:2410.08847; princeton-nlp/unintentional-unalignment ches.py.
    """
    sums = []
    for hidden, mask in ((chosen_hidden, chosen_token_mask), (rejected_hidden, rejected_token_mask)):
        if hidden.dim() != 3 or hidden.shape[:2] != mask.shape:
            raise ShapeError(f"ches_score: hidden states {tuple(hidden.shape)} and mask {tuple(mask.shape)} do not fit")
        total = torch.where((mask > 0).unsqueeze(2), hidden, 0.0).sum(dim=1)
        sums.append(total / (mask > 0).sum(dim=1, keepdim=True).clamp(min=1) if length_normalize else total)
    chosen, rejected = sums
    return ((chosen * rejected).sum(dim=1) - chosen.square().sum(dim=1)).detach()


def gradient_ratio(*, chosen_logps: Tensor, rejected_logps: Tensor) -> Tensor:
    """Return (B,) how much harder DPO pushes p(chosen) up than p(rejected) down: ``p(rejected) / p(chosen)``.

    It vanishes as training goes on: the rejected sample's drop dominates (3D-properties, arXiv:2406.07327). The
    logarithm is cut at 80, so that it stays finite in single precision.
    """
    return (rejected_logps - chosen_logps).clamp(max=80.0).exp().detach()
