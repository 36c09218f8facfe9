"""DiffusionNFT: reinforcement learning on the forward process, by regressing two implicit velocities."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diffpref.core.annotations import NonNegative, Positive
from diffpref.objectives.base import objective

__all__ = ["diffusion_nft"]

Mode = Literal["all", "positive_only", "negative_only", "one_only", "binary"]


@objective(
    "diffusion_nft",
    kind="pointwise",
    source="Zheng et al., DiffusionNFT: Online Diffusion Reinforcement with Forward Process, arXiv:2509.16117",
    evidence="official",
    aliases=("diffusion-nft",),
    published=("denoising",),
    signs={},
    stops=("policy_prediction",),
    domain={"timesteps": (0.0, 1.0)},
)
def diffusion_nft(
    *,
    policy_prediction: Tensor,
    behaviour_prediction: Tensor,
    reference_prediction: Tensor,
    target: Tensor,
    timesteps: Tensor,
    advantage: Tensor,
    beta: Positive = 1.0,
    kl_beta: NonNegative = 1e-4,
    adv_clip_max: Positive = 5.0,
    adv_mode: Mode = "all",
) -> Tensor:
    r"""Draw the policy to a well-rewarded sample, and its mirror image in the sampler to a badly rewarded one.

    .. math:: \ell = C\,\Big(r\,\frac{l_+}{\beta} + (1 - r)\,\frac{l_-}{\beta}\Big) +
              k\,\mathrm{mean}\,(v_\theta - v_{\mathrm{ref}})^2, \qquad
              l_\pm = \frac{\mathrm{mean}\, t^2 (v - v_\pm)^2}{\mathrm{sg}\,[\mathrm{mean}\, t\,|v - v_\pm|]}

    with :math:`v_+ = \beta v_\theta + (1 - \beta) v_{\mathrm{old}}`, :math:`v_- = (1 + \beta) v_{\mathrm{old}} - \beta
    v_\theta` and :math:`r = \mathrm{clip}(A / 2C + 1/2, 0, 1)`. The code writes :math:`t (v - v_\pm)` as the error of
    the clean data that a velocity implies, which is the same number.

    Args:
        policy_prediction: (B, ...) velocity of the policy on a re-noised sample.
        behaviour_prediction: (B, ...) velocity of the lagged policy that sampled. No gradient.
        reference_prediction: (B, ...) velocity of the reference. No gradient.
        target: (B, ...) v above, noise minus clean data. No gradient.
        timesteps: (B,) t in [0, 1], 1 = noise.
        advantage: (B,) A above (`diffpref.ranking.group_advantages`). No gradient.
        beta: how much of the policy is in the two implicit velocities: 1 or 0.1.
        kl_beta: k above.
        adv_clip_max: C above; larger advantages count as C.
        adv_mode: use all of an advantage, its positive or negative part, whether it is positive, or its sign.

    Returns:
        (B,) losses, unreduced; independent of the reward, but not their gradient, where policy and sampler agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Zheng et al., DiffusionNFT, ICLR 2026; NVlabs/DiffusionNFT ``scripts/train_nft_sd3.py``.
    Reduces to: regression on the target, with the adaptive weight, at ``beta: 1`` and the largest advantage.

    >>> import torch
    >>> ones, zeros = torch.ones(1, 2), torch.zeros(1, 2)
    >>> velocities = {"policy_prediction": zeros, "behaviour_prediction": zeros, "reference_prediction": zeros}
    >>> more = {"timesteps": torch.tensor([0.5]), "advantage": torch.tensor([2.0])}
    >>> diffusion_nft(**velocities, target=ones, **more).item()
    2.5
    """
    bounded = advantage.clamp(-adv_clip_max, adv_clip_max)
    if adv_mode == "positive_only":
        bounded = bounded.clamp(min=0)
    elif adv_mode == "negative_only":
        bounded = bounded.clamp(max=0)
    elif adv_mode == "one_only":
        bounded = (bounded > 0).to(bounded.dtype)
    elif adv_mode == "binary":
        bounded = bounded.sign()
    share = (bounded / (2 * adv_clip_max) + 0.5).clamp(0, 1)
    time = timesteps.to(target.dtype).view(-1, *[1] * (target.dim() - 1))
    step = beta * (policy_prediction - behaviour_prediction)
    towards = _weighted(time * (target - behaviour_prediction - step))
    away = _weighted(time * (target - behaviour_prediction + step))
    stay = (policy_prediction - reference_prediction).square().flatten(1).mean(dim=1)
    return adv_clip_max * (share * towards + (1 - share) * away) / beta + kl_beta * stay


def _weighted(error: Tensor) -> Tensor:
    """Return the mean square over the mean size of an error, the latter a constant."""
    size = error.detach().abs().flatten(1).mean(dim=1).clamp(min=1e-5)
    return error.square().flatten(1).mean(dim=1) / size
