"""Losses on the odds of a response, without a reference and in one stage with fine-tuning: ORPO and ASFT."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpref.core.annotations import NonNegative, scale
from diffpref.objectives.base import objective
from diffpref.objectives.imitation import Normalization, imitation
from diffpref.objectives.pair_links import expected, logistic, per_token

__all__ = ["asft", "orpo"]

LIKELY = -1e-6
"""Log-probabilities are taken to be no higher: at probability 1 the odds are infinite."""
NEGATIVE = {"policy_chosen_logps": (-float("inf"), 0.0), "policy_rejected_logps": (-float("inf"), 0.0)}


def _log_complement(logps: Tensor) -> Tensor:
    """Return log(1 - e^logps)."""
    return torch.log(-torch.expm1(logps.clamp(max=LIKELY)))


@objective(
    "orpo",
    kind="pairwise",
    source="Hong et al., ORPO: Monolithic Preference Optimization without Reference Model, arXiv:2403.07691, eq. 6",
    evidence="official",
    coupling="batch",
    coupled_by={"nll": ("token_mean_batch",)},
    domain=NEGATIVE,
)
def orpo(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    odds_weight: NonNegative = 0.1,
    nll_weight: NonNegative = 1.0,
    nll: Normalization = scale(tokens="token_mean_batch", denoising="seq_sum"),
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Imitate the chosen response and, with a small weight, raise its odds over those of the rejected one.

    .. math:: \ell = \mathrm{NLL}(x_w) - \lambda \log\sigma\big(o(a_w) - o(a_l)\big), \qquad
              o(a) = a - \log(1 - e^a), \quad a = \frac{\log\pi(x)}{n}

    Args:
        policy_chosen_logps: (B,) log-probability of the chosen response under the policy, at most 0.
        policy_rejected_logps: (B,) the same for the rejected response.
        preference: (B,) P(chosen is better) in [0, 1]: the label of the odds ratio, and the weight of the imitation; 1
            where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed with ``length_normalize``. No gradient.
        rejected_length: (B,) the same for the rejected response.
        odds_weight: lambda above (TRL's beta).
        nll_weight: factor of the imitation; 0 leaves the odds ratio, to be composed with another `nll`.
        nll: the tokens that the imitation is a mean over. Both codes count the prompt's tokens too unless it is masked;
            here only responses count. ``token_mean_batch`` couples the records of a batch.
        length_normalize: the odds are of the mean token. Denoisers' log-likelihoods are means already.

    Returns:
        (B,) losses, unreduced. Log-probabilities above -1e-6 are taken for that.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: lengths are needed and missing.

    Source: Hong, Lee and Thorne, ORPO, EMNLP 2024, eq. 6; code: xfactlab/orpo, TRL ``ORPOTrainer``.
    Reduces to: `nll` at odds_weight=0.

    >>> import torch
    >>> logps = {"policy_chosen_logps": torch.tensor([-12.5]), "policy_rejected_logps": torch.tensor([-14.0])}
    >>> lengths = {"chosen_length": torch.tensor([10.0]), "rejected_length": torch.tensor([12.0])}
    >>> round(orpo(**logps, **lengths).item(), 6)
    1.325434
    """
    chosen, rejected = per_token(
        "orpo", length_normalize, policy_chosen_logps, policy_rejected_logps, chosen_length, rejected_length
    )
    log_odds = chosen - rejected - _log_complement(chosen) + _log_complement(rejected)
    imitated = imitation("orpo", nll, policy_chosen_logps, chosen_length, preference)
    return nll_weight * imitated + odds_weight * logistic(log_odds, preference)


@objective(
    "asft",
    kind="pairwise",
    source="Wang et al., ASFT: Aligned Supervised Fine-Tuning through Absolute Likelihood, arXiv:2409.10571",
    evidence="secondary",
    domain=NEGATIVE,
)
def asft(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    align_weight: NonNegative = 0.1,
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Imitate the chosen response, and make each response by itself likely or unlikely.

    .. math:: \ell = -a_w - \lambda\big(\log\sigma(o(a_w)) + \log\sigma(-o(a_l))\big)
              = -(1 + \lambda)\,a_w - \lambda \log(1 - e^{a_l}), \qquad a = \frac{\log\pi(x)}{n}

    because :math:`\sigma(o(a)) = e^a`. The two responses do not interact, and the rejected one stops mattering as it
    becomes unlikely.

    Args:
        policy_chosen_logps: (B,) log-probability of the chosen response under the policy, at most 0.
        policy_rejected_logps: (B,) the same for the rejected response.
        preference: (B,) P(chosen is better) in [0, 1]: the term of lambda is the expectation over it, and it weights
            the imitation; 1 where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed with ``length_normalize``. No gradient.
        rejected_length: (B,) the same for the rejected response.
        align_weight: lambda above. The paper's value was not found; this is ORPO's.
        length_normalize: take the mean token. Denoisers' log-likelihoods are means already.

    Returns:
        (B,) positive losses, unreduced. Rejected log-probabilities above -1e-6 are taken for that.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: ``length_normalize`` without lengths.

    Source: Wang et al., ASFT, 2024, as quoted in a comparison of direct alignment algorithms.
    Reduces to: `nll` of mean tokens at align_weight=0.

    >>> import torch
    >>> logps = {"policy_chosen_logps": torch.tensor([-12.5]), "policy_rejected_logps": torch.tensor([-14.0])}
    >>> lengths = {"chosen_length": torch.tensor([10.0]), "rejected_length": torch.tensor([12.0])}
    >>> round(asft(**logps, **lengths).item(), 6)
    1.41231
    """
    chosen, rejected = per_token(
        "asft", length_normalize, policy_chosen_logps, policy_rejected_logps, chosen_length, rejected_length
    )
    imitated = chosen if preference is None else preference * chosen
    aligned = expected(lambda better, worse: better + _log_complement(worse), preference, chosen, rejected)
    return -imitated - align_weight * aligned
