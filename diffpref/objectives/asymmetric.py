"""What the study of DPO's 3D-properties proposes: push the rejected sample less, or imitate the chosen one."""

from __future__ import annotations

from torch import Tensor

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.imitation import Normalization, imitation
from diffpref.objectives.pair_links import expected, logistic

__all__ = ["flex_dpo", "sft_dpo"]


@objective(
    "flex_dpo",
    kind="pairwise",
    source="Yan et al., 3D-Properties: Identifying Challenges in DPO and Charting a Path Forward, arXiv:2406.07327",
    evidence="secondary",
    aliases=("flexible_dpo",),
)
def flex_dpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta_chosen: NonNegative = scale(tokens=0.1, denoising=5000.0),
    beta_rejected: NonNegative = scale(tokens=0.05, denoising=2500.0),
) -> Tensor:
    r"""Compare the pair with a beta for each side, so that the rejected sample is pushed away less.

    .. math:: \ell = -\log\sigma\big(\beta^+ \Delta_w - \beta^- \Delta_l\big)

    With soft labels it is the expectation over the label: the better one has the larger beta.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta_chosen: beta^+ above, in the unit of `dpo`'s.
        beta_rejected: beta^- above; 0.02 to 0.1 for text. The gradients of the two sides are as the two betas.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Yan et al., 3D-Properties, ICLR 2025, from reviews; the equation is derived from them.
    Reduces to: `dpo` where the betas are equal; a logistic loss of the chosen sample alone at beta_rejected=0.

    >>> import torch
    >>> loss = flex_dpo(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]))
    >>> round(loss.item(), 6)
    0.649159
    """
    return expected(
        lambda better, worse: logistic(beta_chosen * better - beta_rejected * worse),
        preference,
        chosen_log_ratio,
        rejected_log_ratio,
    )


@objective(
    "sft_dpo",
    kind="pairwise",
    source="Yan et al., 3D-Properties: Identifying Challenges in DPO and Charting a Path Forward, arXiv:2406.07327",
    evidence="secondary",
    same_as="rpo",
    coupling="batch",
    coupled_by={"nll": ("token_mean_batch",)},
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+", "policy_chosen_logps": "-"},
)
def sft_dpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    policy_chosen_logps: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    nll_weight: NonNegative = 0.1,
    nll: Normalization = scale(tokens="token_mean_batch", denoising="seq_sum"),
) -> Tensor:
    r"""Compare the pair as DPO does and imitate the chosen sample: `rpo` with other constants.

    .. math:: \ell = -\log\sigma\big(\beta\,(\Delta_w - \Delta_l)\big) + \lambda\,\mathrm{NLL}(x_w)

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        policy_chosen_logps: (B,) log-likelihood of the chosen sample under the policy.
        preference: (B,) P(chosen is better) in [0, 1]: the label of the comparison, and the weight of the imitation; 1
            where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed for the means over tokens. No gradient.
        beta: as of `dpo`.
        nll_weight: lambda above.
        nll: the tokens that the imitation is a mean over; ``token_mean_batch`` couples the records of a batch.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: lengths are needed and missing.

    Source: Yan et al., 3D-Properties, ICLR 2025, from reviews.
    Reduces to: `dpo` at nll_weight=0; `rpo` with its constants.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> lengths = {"chosen_length": torch.tensor([10.0])}
    >>> round(sft_dpo(**ratios, policy_chosen_logps=torch.tensor([-12.5]), **lengths).item(), 6)
    0.755258
    """
    compared = logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)
    return compared + nll_weight * imitation("sft_dpo", nll, policy_chosen_logps, chosen_length, preference)
