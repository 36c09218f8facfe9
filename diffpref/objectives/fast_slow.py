"""Online Fast-Slow chasing DPO: two policies on one base, of which the fast one flees and the slow one follows."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from diffpref.core.annotations import NonNegative, Positive, scale
from diffpref.core.contracts import Terms
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["ofs_dpo"]


@objective(
    "ofs_dpo",
    kind="pairwise",
    source="Qi et al., Online DPO: Online Direct Preference Optimization with Fast-Slow Chasing, arXiv:2406.05534",
    evidence="secondary",
    signs={},
    stops=("chosen_log_ratio", "rejected_log_ratio", "peer_chosen_log_ratio", "peer_rejected_log_ratio"),
    aliases=("fast_slow_dpo",),
)
def ofs_dpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    peer_chosen_log_ratio: Tensor,
    peer_rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=5000.0),
    alpha: NonNegative = 0.1,
) -> Terms:
    r"""Train a fast policy to prefer more clearly than a slow one, and the slow one to catch up.

    .. math:: \ell = \ell_\text{DPO}(F) + \ell_\text{DPO}(S) - \alpha \log\sigma\big(\beta\,(D_F - \bar D_S)\big)
              + \alpha \log\sigma\big(\beta\,(\bar D_F - D_S)\big), \qquad D = \Delta_w - \Delta_l

    A bar stops the gradient: without it the two last terms would cancel for shared parameters. Where the two agree,
    both are pushed to larger margins by alpha beta / 2.

    Args:
        chosen_log_ratio: (B,) fast policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        peer_chosen_log_ratio: (B,) slow policy (the role peer) minus reference, of the chosen sample.
        peer_rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]: the label of the two DPO terms; 1 where the batch has no such
            column. No gradient.
        beta: as of `dpo`.
        alpha: strength of the chase.

    Returns:
        (B,) losses, unreduced; the metrics ``fast_dpo`` and ``slow_dpo`` are what decides which policy is to be fast.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Qi et al., Online DPO with Fast-Slow Chasing, 2024, as ported by others to Stable Diffusion.
    Reduces to: `dpo` of either policy at alpha=0.

    >>> import torch
    >>> fast = {"chosen_log_ratio": torch.tensor([1.0]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> slow = {"peer_chosen_log_ratio": torch.tensor([0.5]), "peer_rejected_log_ratio": torch.tensor([-0.3])}
    >>> round(ofs_dpo(**fast, **slow).losses.item(), 6)
    1.261139
    """
    fast = beta * (chosen_log_ratio - rejected_log_ratio)
    slow = beta * (peer_chosen_log_ratio - peer_rejected_log_ratio)
    own, other = logistic(fast, preference), logistic(slow, preference)
    chase = logsigmoid(fast.detach() - slow) - logsigmoid(fast - slow.detach())
    return Terms(own + other + alpha * chase, metrics={"fast_dpo": own, "slow_dpo": other})
