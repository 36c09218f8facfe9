"""Pairs whose units weigh differently: masks on rewards and KL (SparsePO), and the reward of a guide (TGDPO)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import Number, Positive, scale
from diffpref.objectives.base import Sign, objective
from diffpref.objectives.lists import filled

__all__ = ["sparsepo", "sparsepo_activation", "sparsepo_independent", "tgdpo"]

SOURCE = "Christopoulou et al., arXiv:2410.05102, eq. 6 to 9"
SIGNS: dict[str, Sign] = {
    "chosen_token_log_ratio": "-",
    "rejected_token_log_ratio": "+",
    "chosen_token_kl": "-",
    "rejected_token_kl": "+",
}


def _weighted(weight: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return (B,) weighted sums over the units that are there."""
    return (filled(weight, mask > 0) * filled(values, mask > 0)).sum(dim=1)


@objective("sparsepo", kind="token", source=SOURCE, evidence="memory", signs=SIGNS)
def sparsepo(
    *,
    chosen_token_log_ratio: Tensor,
    rejected_token_log_ratio: Tensor,
    chosen_token_kl: Tensor,
    rejected_token_kl: Tensor,
    policy_chosen_token_weight: Tensor,
    policy_rejected_token_weight: Tensor,
    chosen_token_mask: Tensor,
    rejected_token_mask: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Token-level DPO in which a learned mask says which units matter, for reward and KL alike.

    .. math:: \ell = -\log\sigma\Big(\beta \sum_t m_{w,t} (d_{w,t} + \kappa_{w,t})
              - \beta \sum_t m_{l,t} (d_{l,t} + \kappa_{l,t})\Big)

    Args:
        chosen_token_log_ratio: (B, T) d, policy minus reference log-likelihood of each unit of the chosen sample: a
            token; a frame or a timestep draw of a denoiser.
        rejected_token_log_ratio: (B, T') the same for the rejected sample.
        chosen_token_kl: (B, T) kappa, KL(reference || policy) at each unit.
        rejected_token_kl: (B, T') the same for the rejected sample.
        policy_chosen_token_weight: (B, T) m >= 0, of a mask head on the policy; gradient flows into it.
        policy_rejected_token_weight: (B, T') the same for the rejected sample.
        chosen_token_mask: (B, T) 1 where a unit is there.
        rejected_token_mask: (B, T') the same for the rejected sample.
        beta: inverse temperature; it multiplies the KL too.

    Returns:
        (B,) positive losses, unreduced; ln 2, without gradient into the policy, where all weights are 0. A mask that
        collapses there learns nothing more: start its head's bias above 0.

    Raises:
        ShapeError: the tensors of a side differ in shape.

    Source: Christopoulou et al., SparsePO, Findings of EMNLP 2025, from memory in what the abstract leaves open.
    Reduces to: `tdpo1` where all weights are 1; `sparsepo_independent` with one mask for both.

    >>> import torch
    >>> sides = {"chosen": ([0.5, -0.2, 0.9], [0.1, 0.05, 0.2], [1, 0, 0.5]), "rejected": ([0.1], [0.3], [0.5])}
    >>> names = "{}_token_log_ratio", "{}_token_kl", "policy_{}_token_weight"
    >>> pair = {n.format(s): torch.tensor([v]) for s, vs in sides.items() for n, v in zip(names, vs)}
    >>> masks = {"chosen_token_mask": torch.ones(1, 3), "rejected_token_mask": torch.ones(1, 1)}
    >>> round(sparsepo(**pair, **masks).item(), 6)
    0.646775
    """
    chosen = _weighted(policy_chosen_token_weight, chosen_token_log_ratio + chosen_token_kl, chosen_token_mask)
    rejected = _weighted(
        policy_rejected_token_weight, rejected_token_log_ratio + rejected_token_kl, rejected_token_mask
    )
    return -logsigmoid(beta * (chosen - rejected))


@objective(
    "sparsepo_independent",
    kind="token",
    source=SOURCE,
    evidence="memory",
    signs={**SIGNS, "policy_chosen_token_kl_weight": "-", "policy_rejected_token_kl_weight": "+"},
)
def sparsepo_independent(
    *,
    chosen_token_log_ratio: Tensor,
    rejected_token_log_ratio: Tensor,
    chosen_token_kl: Tensor,
    rejected_token_kl: Tensor,
    policy_chosen_token_weight: Tensor,
    policy_rejected_token_weight: Tensor,
    policy_chosen_token_kl_weight: Tensor,
    policy_rejected_token_kl_weight: Tensor,
    chosen_token_mask: Tensor,
    rejected_token_mask: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Token-level DPO with two learned masks, one for the units' rewards and one for their KL.

    .. math:: \ell = -\log\sigma(u - \delta), \qquad u = \beta \sum_t m^u_{w,t} d_{w,t}
              - \beta \sum_t m^u_{l,t} d_{l,t},
              \qquad \delta = \beta \sum_t m^d_{l,t} \kappa_{l,t} - \beta \sum_t m^d_{w,t} \kappa_{w,t}

    Args:
        chosen_token_log_ratio: (B, T) d, policy minus reference log-likelihood of each unit of the chosen sample.
        rejected_token_log_ratio: (B, T') the same for the rejected sample.
        chosen_token_kl: (B, T) kappa, KL(reference || policy) at each unit.
        rejected_token_kl: (B, T') the same for the rejected sample.
        policy_chosen_token_weight: (B, T) m^u >= 0, of a mask head on the policy; gradient flows into it.
        policy_rejected_token_weight: (B, T') the same for the rejected sample.
        policy_chosen_token_kl_weight: (B, T) m^d >= 0, of a second head.
        policy_rejected_token_kl_weight: (B, T') the same for the rejected sample.
        chosen_token_mask: (B, T) 1 where a unit is there.
        rejected_token_mask: (B, T') the same for the rejected sample.
        beta: inverse temperature; it multiplies the KL too.

    Returns:
        (B,) positive losses, unreduced.

    Raises:
        ShapeError: the tensors of a side differ in shape.

    Source: Christopoulou et al., SparsePO, Findings of EMNLP 2025, from memory in what the abstract leaves open.
    Reduces to: `dpo` with rewards' weights 1 and the KL's 0; `tdpo1` with 1 for both.

    >>> import torch
    >>> told = "{}_token_log_ratio", "{}_token_kl", "{}_token_mask"
    >>> names = *told, "policy_{}_token_weight", "policy_{}_token_kl_weight"
    >>> pair = {name.format(s): torch.ones(1, 2) for s in ("chosen", "rejected") for name in names}
    >>> round(sparsepo_independent(**pair).item(), 6)
    0.693147
    """
    chosen = _weighted(policy_chosen_token_weight, chosen_token_log_ratio, chosen_token_mask)
    rejected = _weighted(policy_rejected_token_weight, rejected_token_log_ratio, rejected_token_mask)
    chosen_kl = _weighted(policy_chosen_token_kl_weight, chosen_token_kl, chosen_token_mask)
    rejected_kl = _weighted(policy_rejected_token_kl_weight, rejected_token_kl, rejected_token_mask)
    return -logsigmoid(beta * ((chosen - rejected) - (rejected_kl - chosen_kl)))


@objective(
    "sparsepo_activation", kind="token", source=SOURCE, evidence="memory", aliases=("sparsepo_mapo",), signs=SIGNS
)
def sparsepo_activation(
    *,
    chosen_token_log_ratio: Tensor,
    rejected_token_log_ratio: Tensor,
    chosen_token_kl: Tensor,
    rejected_token_kl: Tensor,
    reference_chosen_token_weight: Tensor,
    reference_rejected_token_weight: Tensor,
    chosen_token_mask: Tensor,
    rejected_token_mask: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
) -> Tensor:
    r"""Token-level DPO in which the reference's activations say which units matter: a mask without parameters.

    .. math:: \ell = -\log\sigma\Big(\beta \sum_t m_{w,t} (d_{w,t} + \kappa_{w,t})
              - \beta \sum_t m_{l,t} (d_{l,t} + \kappa_{l,t})\Big)

    Args:
        chosen_token_log_ratio: (B, T) d, policy minus reference log-likelihood of each unit of the chosen sample.
        rejected_token_log_ratio: (B, T') the same for the rejected sample.
        chosen_token_kl: (B, T) kappa, KL(reference || policy) at each unit.
        rejected_token_kl: (B, T') the same for the rejected sample.
        reference_chosen_token_weight: (B, T) m in [0, 1]: `diffpref.models.heads.activation_weights` of the reference's
            hidden states. No gradient.
        reference_rejected_token_weight: (B, T') the same for the rejected sample.
        chosen_token_mask: (B, T) 1 where a unit is there.
        rejected_token_mask: (B, T') the same for the rejected sample.
        beta: inverse temperature; it multiplies the KL too.

    Returns:
        (B,) positive losses, unreduced.

    Raises:
        ShapeError: the tensors of a side differ in shape.

    Source: Christopoulou et al., SparsePO, Findings of EMNLP 2025 (there MaPO, which elsewhere names the margin-aware
    loss of diffusion models), from memory.
    Reduces to: `tdpo1` where all weights are 1; `sparsepo` without gradient into the mask.

    >>> import torch
    >>> names = "{}_token_log_ratio", "{}_token_kl", "reference_{}_token_weight", "{}_token_mask"
    >>> pair = {n.format(s): torch.ones(1, 2) for s in ("chosen", "rejected") for n in names}
    >>> round(sparsepo_activation(**pair).item(), 6)
    0.693147
    """
    chosen = _weighted(reference_chosen_token_weight, chosen_token_log_ratio + chosen_token_kl, chosen_token_mask)
    rejected = _weighted(
        reference_rejected_token_weight, rejected_token_log_ratio + rejected_token_kl, rejected_token_mask
    )
    return -logsigmoid(beta * (chosen - rejected))


@objective(
    "tgdpo",
    kind="token",
    source="Zhu et al., arXiv:2506.14574, eq. 15; dvlab-research/TGDPO train/tgdpo/trainer.py",
    evidence="official",
    signs={},
)
def tgdpo(
    *,
    chosen_token_log_ratio: Tensor,
    rejected_token_log_ratio: Tensor,
    guide_chosen_token_log_ratio: Tensor,
    guide_rejected_token_log_ratio: Tensor,
    chosen_token_mask: Tensor,
    rejected_token_mask: Tensor,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    alpha: Number = 0.5,
    guide_beta: Positive | None = None,
    nonnegative: bool = False,
) -> Tensor:
    r"""DPO whose units count for more where a model aligned before rewards them, for less where it does not.

    .. math:: \ell = -\log\sigma\Big(\beta \sum_t (1 + \alpha\beta g_{w,t})\, d_{w,t}
              - \beta \sum_t (1 - \alpha\beta g_{l,t})\, d_{l,t}\Big)

    Args:
        chosen_token_log_ratio: (B, T) d, policy minus reference log-likelihood of each unit of the chosen sample.
        rejected_token_log_ratio: (B, T') the same for the rejected sample.
        guide_chosen_token_log_ratio: (B, T) g, guide minus reference log-likelihood; the guide is a frozen model that
            was tuned before, with the same reference. No gradient.
        guide_rejected_token_log_ratio: (B, T') the same for the rejected sample.
        chosen_token_mask: (B, T) 1 where a unit is there.
        rejected_token_mask: (B, T') the same for the rejected sample.
        beta: inverse temperature.
        alpha: how much the guide's rewards change the weights.
        guide_beta: the beta that the guide was trained with; the loss's own where not given, as in the official code.
        nonnegative: keep weights from falling below 0, which they do where ``alpha * beta * g`` exceeds 1 in size.

    Returns:
        (B,) positive losses, unreduced; ln 2 where policy and reference agree.

    Raises:
        ShapeError: the tensors of a side differ in shape.

    Source: Zhu et al., TGDPO: Harnessing Token-Level Reward Guidance for Enhancing Direct Preference Optimization, ICML
    2025; constants follow the official code.
    Reduces to: `dpo` at alpha=0, or where the guide is the reference.

    >>> import torch
    >>> own, other = torch.tensor([[0.5, -0.2]]), torch.tensor([[0.1]])
    >>> pair = {"chosen_token_log_ratio": own, "rejected_token_log_ratio": other}
    >>> guide = {"guide_chosen_token_log_ratio": torch.ones(1, 2), "guide_rejected_token_log_ratio": torch.ones(1, 1)}
    >>> masks = {"chosen_token_mask": torch.ones(1, 2), "rejected_token_mask": torch.ones(1, 1)}
    >>> round(tgdpo(**pair, **guide, **masks).item(), 6)
    0.682208
    """
    strength = alpha * (beta if guide_beta is None else guide_beta)
    chosen_weight = 1 + strength * guide_chosen_token_log_ratio
    rejected_weight = 1 - strength * guide_rejected_token_log_ratio
    if nonnegative:
        chosen_weight, rejected_weight = chosen_weight.clamp(min=0), rejected_weight.clamp(min=0)
    chosen = _weighted(chosen_weight, chosen_token_log_ratio, chosen_token_mask)
    rejected = _weighted(rejected_weight, rejected_token_log_ratio, rejected_token_mask)
    return -logsigmoid(beta * (chosen - rejected))
