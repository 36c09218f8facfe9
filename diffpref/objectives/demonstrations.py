"""Fine-tuning on demonstrations as learning their reward: SFT under other divergences than the KL."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from diffpref.core.annotations import Positive, scale
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective

__all__ = ["bridge_sft"]

LOWEST = {"hellinger": -0.9, "reverse_kl": -40.0, "js": -0.65}
"""Below, the formulas end (Hellinger at -1, JS at -ln 2) or overflow; they go on there along their tangents."""


@objective(
    "bridge_sft",
    kind="supervised",
    source="Wang et al., Implicit Reward as the Bridge: A Unified View of SFT and DPO Connections, arXiv:2507.00018",
    evidence="paper",
    signs={},
    aliases=("implicit_reward_sft",),
)
def bridge_sft(
    *,
    chosen_log_ratio: Tensor,
    chosen_length: Tensor | None = None,
    beta: Positive = 1.0,
    divergence: Literal["total_variation", "chi2", "hellinger", "reverse_kl", "js"] = "chi2",
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""Raise the implicit reward of demonstrations, as far as an f-divergence lets it.

    .. math:: \ell = -\varphi(\beta\,\Delta_w)

    with :math:`\varphi(x) = x` (total variation), :math:`x - x^2 / 4` (Pearson's chi squared),
    :math:`x / (1 + x)` (squared Hellinger), :math:`-e^{-x-1}` (reverse KL), :math:`\log(2 - e^{-x})` (Jensen-Shannon).

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the demonstration.
        chosen_length: (B,) its tokens; needed with ``length_normalize``. No gradient.
        beta: factor of the reward.
        divergence: which phi. Hellinger is defined above -1, Jensen-Shannon above -ln 2; below -0.9 and -0.65, and for
            the reverse KL below -40, phi goes on along its tangent.
        length_normalize: take the mean token as x, which stays in the domain for long responses.

    Returns:
        (B,) losses, unreduced; they may be negative.

    Raises:
        ConfigError: ``length_normalize`` without lengths.

    Source: Wang et al., Implicit Reward as the Bridge, NeurIPS 2025; phi derived from inverse soft-Q imitation, the
    normalisation is not verified.
    Reduces to: `nll` times beta, up to a constant, with the total variation.

    >>> import torch
    >>> bridge_sft(chosen_log_ratio=torch.tensor([0.5]), length_normalize=False).item()
    -0.4375
    """
    ratio = chosen_log_ratio
    if length_normalize:
        if chosen_length is None:
            raise ConfigError(
                "bridge_sft: length_normalize needs the column chosen_length; set length_normalize=false to take sums"
            )
        ratio = chosen_log_ratio / chosen_length
    x = beta * ratio
    if divergence == "total_variation":
        return -x
    if divergence == "chi2":
        return x.square() / 4 - x
    inside = x.clamp(min=LOWEST[divergence])
    below = x.clamp(max=LOWEST[divergence]) - LOWEST[divergence]
    if divergence == "hellinger":
        slope = 1 / (1 + LOWEST["hellinger"]) ** 2
        return -inside / (1 + inside) - slope * below
    if divergence == "reverse_kl":
        slope = math.exp(-LOWEST["reverse_kl"] - 1)
        return torch.exp(-inside - 1) - slope * below
    slope = 1 / (2 * math.exp(LOWEST["js"]) - 1)
    return -torch.log(2 - torch.exp(-inside)) - slope * below
