"""Preference learning with rationales: explain the preference as well as having it."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective
from diffpref.objectives.imitation import Normalization
from diffpref.objectives.odds_ratio import NEGATIVE, orpo
from diffpref.objectives.pair_links import logistic

__all__ = ["rationale_dpo", "rationale_orpo"]


@objective(
    "rationale_dpo",
    kind="pairwise",
    source="Just et al., Data-Centric Human Preference Optimization with Rationales, arXiv:2407.14477",
    evidence="official",
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+", "policy_rationale_logps": "-"},
    aliases=("rdpo_rationale",),
)
def rationale_dpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    policy_rationale_logps: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    rationale_weight: NonNegative = 0.001,
    form: Literal["code", "nll"] = "code",
) -> Tensor:
    r"""Compare the pair as DPO does, and say why the chosen one is better.

    .. math:: \ell = -\log\sigma\big(\beta\,(\Delta_w - \Delta_l)\big) - \log\sigma(\gamma \log\pi(r))
              \quad\text{or}\quad \ldots - \gamma \log\pi(r)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        policy_rationale_logps: (B,) log-likelihood under the policy of a rationale, given prompt, both responses and
            which is better, summed over its tokens.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as of `dpo`.
        rationale_weight: gamma above.
        form: ``code`` is the authors' sigmoid, which at weight 0 leaves the constant ln 2 and pulls half as hard while
            gamma log pi is near 0; ``nll`` is the paper's.

    Returns:
        (B,) positive losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Just et al., 2024; code: reds-lab/preference-learning-with-rationales ``RDPOTrainer``.
    Reduces to: `dpo` at rationale_weight=0 with ``form="nll"``.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(rationale_dpo(**ratios, policy_rationale_logps=torch.tensor([-40.0])).item(), 6)
    1.343605
    """
    compared = logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)
    explained = rationale_weight * policy_rationale_logps
    return compared - (logsigmoid(explained) if form == "code" else explained)


@objective(
    "rationale_orpo",
    kind="pairwise",
    source="Just et al., Data-Centric Human Preference Optimization with Rationales, arXiv:2407.14477",
    evidence="official",
    coupling="batch",
    coupled_by={"nll": ("token_mean_batch",)},
    domain=NEGATIVE,
    signs={"policy_chosen_logps": "-", "policy_rejected_logps": "+", "policy_rationale_logps": "-"},
)
def rationale_orpo(
    *,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    policy_rationale_logps: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    rationale_length: Tensor | None = None,
    odds_weight: NonNegative = 0.1,
    rationale_weight: NonNegative = 1.0,
    nll: Normalization = scale(tokens="token_mean_seq", denoising="seq_sum"),
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Do as ORPO, and imitate a rationale of the preference.

    .. math:: \ell = \mathrm{NLL}(x_w) - \lambda \log\sigma\big(o(a_w) - o(a_l)\big) - \gamma \frac{\log\pi(r)}{n_r}

    Args:
        policy_chosen_logps: (B,) log-probability of the chosen response under the policy, at most 0.
        policy_rejected_logps: (B,) the same for the rejected response.
        policy_rationale_logps: (B,) the same for a rationale, given prompt, both responses and which is better.
        preference: (B,) P(chosen is better) in [0, 1]: the label of the odds ratio, and the weight of the imitation; 1
            where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed with ``length_normalize``. No gradient.
        rejected_length: (B,) the same for the rejected response.
        rationale_length: (B,) the same for the rationale.
        odds_weight: lambda above.
        rationale_weight: gamma above.
        nll: the tokens that the imitation of the chosen response is a mean over.
        length_normalize: odds and rationale are of the mean token.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: lengths are needed and missing.

    Source: Just et al., 2024; code: reds-lab/preference-learning-with-rationales ``SimpleRORPOTrainer``.
    Reduces to: `orpo` at rationale_weight=0.

    >>> import torch
    >>> logps = {f"policy_{k}_logps": torch.tensor([-12.0]) for k in ("chosen", "rejected", "rationale")}
    >>> lengths = {f"{k}_length": torch.tensor([10.0]) for k in ("chosen", "rejected", "rationale")}
    >>> round(rationale_orpo(**logps, **lengths).item(), 6)
    2.469315
    """
    explained = policy_rationale_logps
    if length_normalize:
        if rationale_length is None:
            raise ConfigError("rationale_orpo: length_normalize needs the column rationale_length")
        explained = policy_rationale_logps / rationale_length
    compared = cast(
        Tensor,
        orpo.spec.function(
            policy_chosen_logps=policy_chosen_logps,
            policy_rejected_logps=policy_rejected_logps,
            preference=preference,
            chosen_length=chosen_length,
            rejected_length=rejected_length,
            odds_weight=odds_weight,
            nll_weight=1.0,
            nll=nll,
            length_normalize=length_normalize,
        ),
    )
    return compared - rationale_weight * explained
