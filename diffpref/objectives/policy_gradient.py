"""Clipped policy gradients over sampling steps: DDPO, Flow-GRPO, MixGRPO and DanceGRPO.

Log-probabilities of a step are Gaussian log-densities averaged, not summed, over the latent's elements, as in all
official codes: the published clip ranges and betas hold for the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffpref.core.annotations import NonNegative, Positive
from diffpref.objectives.base import objective

__all__ = ["ddpo", "flow_grpo", "mixgrpo"]


def _clipped(change: Tensor, advantage: Tensor, clip_range: float, adv_clip_max: float) -> Tensor:
    """Return PPO's loss of a step: change is the log-ratio of the policy to the one that sampled."""
    bounded, ratio = advantage.clamp(-adv_clip_max, adv_clip_max), change.exp()
    return torch.maximum(-bounded * ratio, -bounded * ratio.clamp(1 - clip_range, 1 + clip_range))


@objective(
    "ddpo",
    kind="step",
    source="Black et al., Training Diffusion Models with Reinforcement Learning, arXiv:2305.13301, eq. 4",
    evidence="official",
    published=("steps",),
    signs={},
)
def ddpo(
    *,
    policy_logps: Tensor,
    behaviour_logps: Tensor,
    advantage: Tensor,
    clip_range: Positive = 1e-4,
    adv_clip_max: Positive = 5.0,
) -> Tensor:
    r"""Make the sampling steps of well-rewarded images more likely, within a trust region.

    .. math:: \ell = \max\big(-A\rho,\; -A\,\mathrm{clip}(\rho, 1 - c, 1 + c)\big), \qquad
              \rho = \frac{\pi_\theta(x_{t-1} | x_t)}{\pi_{\mathrm{old}}(x_{t-1} | x_t)}

    Args:
        policy_logps: (B,) log-probability of a sampling step under the policy, a mean over elements.
        behaviour_logps: (B,) the same under the policy that sampled, stored with the sample.
        advantage: (B,) A above, of the whole sample (`diffpref.ranking.group_advantages`). No gradient.
        clip_range: c above.
        adv_clip_max: advantages are clipped to plus or minus this.

    Returns:
        (B,) losses, unreduced; minus the advantage where the policy is the one that sampled.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Black et al., DDPO, ICLR 2024; kvablack/ddpo-pytorch ``scripts/train.py``.
    Reduces to: REINFORCE's gradient where the policy is the one that sampled.

    >>> import torch
    >>> logps = torch.tensor([-1.0])
    >>> ddpo(policy_logps=logps, behaviour_logps=logps, advantage=torch.tensor([0.5])).item()
    -0.5
    """
    return _clipped(policy_logps - behaviour_logps, advantage, clip_range, adv_clip_max)


@objective(
    "flow_grpo",
    kind="step",
    source="Liu et al., Flow-GRPO: Training Flow Matching Models via Online RL, arXiv:2505.05470",
    evidence="official",
    aliases=("flow-grpo",),
    published=("steps",),
    signs={"kl": "+"},
)
def flow_grpo(
    *,
    policy_logps: Tensor,
    behaviour_logps: Tensor,
    kl: Tensor,
    advantage: Tensor,
    clip_range: Positive = 1e-4,
    adv_clip_max: Positive = 5.0,
    beta: NonNegative = 0.04,
) -> Tensor:
    r"""Make the stochastic steps of a flow model's better samples more likely, and stay near the reference.

    .. math:: \ell = \max\big(-A\rho,\; -A\,\mathrm{clip}(\rho, 1 - c, 1 + c)\big) + \beta\,\mathrm{KL}

    Args:
        policy_logps: (B,) log-probability of a sampling step under the policy, a mean over elements.
        behaviour_logps: (B,) the same under the policy that sampled, stored with the sample.
        kl: (B,) divergence of the policy's step from the reference's (`diffpref.schedules.gaussian_kl`). The published
            betas hold for the code's form, which divides by the noise level without the step's length.
        advantage: (B,) A above, relative to the samples of one prompt (`diffpref.ranking.group_advantages`). No
            gradient.
        clip_range: c above.
        adv_clip_max: advantages are clipped to plus or minus this.
        beta: 0.04 for GenEval and OCR, 0.01 for PickScore.

    Returns:
        (B,) losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Liu et al., Flow-GRPO, NeurIPS 2025; yifan123/flow_grpo ``scripts/train_sd3.py``.
    Reduces to: `ddpo` at ``beta: 0``.

    >>> import torch
    >>> logps = {"policy_logps": torch.tensor([-1.0]), "behaviour_logps": torch.tensor([-1.0])}
    >>> round(flow_grpo(**logps, kl=torch.tensor([0.5]), advantage=torch.tensor([0.5])).item(), 6)
    -0.48
    """
    return _clipped(policy_logps - behaviour_logps, advantage, clip_range, adv_clip_max) + beta * kl


@objective(
    "mixgrpo",
    kind="step",
    source="Li et al., MixGRPO: Unlocking Flow-based GRPO Efficiency with Mixed ODE-SDE, arXiv:2507.21802; Xue et al.,"
    " DanceGRPO: Unleashing GRPO on Visual Generation, arXiv:2505.07818",
    evidence="official",
    aliases=("dance_grpo", "dancegrpo"),
    published=("steps",),
    signs={},
)
def mixgrpo(
    *,
    policy_logps: Tensor,
    behaviour_logps: Tensor,
    advantage: Tensor,
    clip_range: Positive = 1e-4,
    adv_clip_max: Positive = 5.0,
    kl_coefficient: NonNegative = 0.0,
) -> Tensor:
    r"""Flow-GRPO on a window of stochastic steps, with a squared step in place of a divergence.

    .. math:: \ell = \max\big(-A\rho,\; -A\,\mathrm{clip}(\rho, 1 - c, 1 + c)\big) +
              \tfrac{k}{2}\,(\log\pi_\theta - \log\pi_{\mathrm{old}})^2

    Args:
        policy_logps: (B,) log-probability of a sampling step under the policy, a mean over elements.
        behaviour_logps: (B,) the same under the policy that sampled, stored with the sample.
        advantage: (B,) A above: each reward normalised by its group, then their weighted sum
            (`diffpref.ranking.aggregated_advantages`). No gradient.
        clip_range: c above.
        adv_clip_max: advantages are clipped to plus or minus this.
        kl_coefficient: k above; published with 0.

    Returns:
        (B,) losses, unreduced; minus the advantage where the policy is the one that sampled.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Li et al., MixGRPO, 2025, Tencent-Hunyuan/MixGRPO ``train_grpo_flux.py``; Xue et al., DanceGRPO, 2025,
    whose steps differ (`diffpref.schedules.dance_sde_step`), not the loss.
    Reduces to: `ddpo` at ``kl_coefficient: 0``.

    >>> import torch
    >>> logps = {"policy_logps": torch.tensor([0.0]), "behaviour_logps": torch.tensor([1.0])}
    >>> mixgrpo(**logps, advantage=torch.tensor([0.0]), kl_coefficient=1.0).item()
    0.5
    """
    change = policy_logps - behaviour_logps
    return _clipped(change, advantage, clip_range, adv_clip_max) + 0.5 * kl_coefficient * change.square()
