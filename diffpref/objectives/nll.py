"""Negative log-likelihood of the chosen sample: supervised fine-tuning, alone or added to another objective."""

from __future__ import annotations

from torch import Tensor

from diffpref.core.annotations import scale
from diffpref.core.contracts import Terms
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective
from diffpref.objectives.imitation import Normalization

__all__ = ["nll"]


@objective(
    "nll",
    kind="supervised",
    source="maximum likelihood; SalesforceAIResearch/DiffusionDPO train.py --sft",
    evidence="official",
    aliases=("sft",),
    published=("tokens", "denoising"),
)
def nll(
    *,
    policy_chosen_logps: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    normalization: Normalization = scale(tokens="token_mean_batch", denoising="seq_sum"),
) -> Tensor | Terms:
    r"""Make the chosen sample more likely, without a reference.

    .. math:: \ell = -\log \pi_\theta(x_w) \quad\text{or}\quad -\frac{1}{n_w} \log \pi_\theta(x_w)

    Args:
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy. For a denoiser that is -0.5
            times its mean squared error, so the loss is half the usual denoising loss; ``coefficient: 2`` gives the
            official ``--sft`` loss.
        preference: (B,) P(chosen is better) in [0, 1]: the weight of the record, so that an uncertain choice is
            imitated less; 1 where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed for the means over tokens. No gradient.
        normalization: ``token_mean_batch`` is the mean over all tokens, in which longer responses weigh more (what
            TRL's ``sft`` and pretraining do); ``token_mean_seq`` the mean over responses of their mean tokens;
            ``seq_sum`` the log-likelihood itself.

    Returns:
        (B,) losses, unreduced, with the preferences and the numbers of tokens as weights where they are meant.

    Raises:
        ConfigError: a mean over tokens without lengths.

    Source: maximum likelihood; DiffusionDPO ``train.py --sft`` (mean squared error, without the factor 0.5); TRL
    ``loss_type="sft"``.
    Reduces to: the denoising loss of pretraining, times 0.5; the cross-entropy of pretraining.

    >>> import torch
    >>> nll(policy_chosen_logps=torch.tensor([-12.5]), normalization="seq_sum").item()
    12.5
    """
    if normalization == "seq_sum":
        return -policy_chosen_logps if preference is None else Terms(-policy_chosen_logps, weights=preference)
    if chosen_length is None:
        raise ConfigError(
            f"nll: normalization={normalization} needs the column chosen_length; set normalization=seq_sum to take"
            " log-likelihoods as they are"
        )
    losses = -policy_chosen_logps / chosen_length
    if normalization == "token_mean_seq":
        return losses if preference is None else Terms(losses, weights=preference)
    return Terms(losses, weights=chosen_length if preference is None else preference * chosen_length)
