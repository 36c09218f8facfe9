"""Diffusion objectives whose loss is DPO's: what a method puts before the models differs, and the published beta.

One formula, `dpo`, under the names of the papers that changed the noise, the captions, the network or the pairs around
it. Each keeps its published beta as the default for denoisers. Other names of exactly `dpo` are its aliases.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diffpref.core.annotations import Positive, scale
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic

__all__ = ["dcpo", "ddim_inpo", "flow_dpo", "tango2"]


@objective(
    "ddim_inpo",
    kind="pairwise",
    source="Lu et al., InPO: Inversion Preference Optimization with Reparametrized DDIM, arXiv:2503.18454",
    evidence="official",
    aliases=("inpo", "ddim-inpo"),
    published=("denoising",),
    same_as="dpo",
)
def ddim_inpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=2000.0),
) -> Tensor:
    r"""Compare two samples on noisy latents that were found by inverting them, instead of by adding random noise.

    .. math:: \ell = -\log\sigma(\beta\,(\Delta_w - \Delta_l))

    The loss is `dpo`'s; the method makes the latent by DDIM inversion of the sample and regresses on
    :math:`\tau = (x_t - \alpha_t x_0) / \sigma_t`, so that denoising is one-step reconstruction of the sample.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample, on its inverted latent.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as in `dpo`. Published: 2000 for SD 1.5 (the default for denoisers), 5000 for SDXL.

    Returns:
        (B,) positive losses, unreduced; ln 2 where the margin is 0.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Lu et al., InPO, CVPR 2025; JaydenLyh/InPO ``train.py``.
    Reduces to: `dpo`, always; it differs in what the method puts before the models.

    >>> import torch
    >>> loss = ddim_inpo(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]), beta=0.1)
    >>> round(loss.item(), 6)
    0.630258
    """
    return logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)


@objective(
    "dcpo",
    kind="pairwise",
    source="Saeidi et al., Dual Caption Preference Optimization for Diffusion Models, arXiv:2502.06023",
    evidence="official",
    published=("denoising",),
    same_as="dpo",
)
def dcpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=500.0),
) -> Tensor:
    r"""Compare two samples, each under a caption of its own.

    .. math:: \ell = -\log\sigma\big(\beta\,(\Delta(x_w | z_w) - \Delta(x_l | z_l))\big)

    The loss is `dpo`'s; both models see the captions :math:`z_w` and :math:`z_l`, made by a captioner or by perturbing.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample under its caption.
        rejected_log_ratio: (B,) the same for the rejected sample under its own.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as in `dpo`. The published command has 500, the script's own default is 5000.

    Returns:
        (B,) positive losses, unreduced; ln 2 where the margin is 0.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Saeidi et al., Dual Caption Preference Optimization, TMLR 2025; sahsaeedi/DCPO-T2I ``dcpo_trainer.py``.
    Reduces to: `dpo`, always; it differs in the captions.

    >>> import torch
    >>> loss = dcpo(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]), beta=0.1)
    >>> round(loss.item(), 6)
    0.630258
    """
    return logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)


@objective(
    "tango2",
    kind="pairwise",
    source="Majumder et al., Tango 2: Aligning Diffusion-based Text-to-Audio Generations through Direct Preference"
    " Optimization, arXiv:2404.09956; Croitoru et al., Curriculum Direct Preference Optimization, arXiv:2405.13637",
    evidence="official",
    aliases=("curriculum_dpo", "tango2_dpo"),
    published=("denoising",),
    same_as="dpo",
)
def tango2(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=2000.0),
) -> Tensor:
    r"""Diffusion-DPO on audio latents (Tango 2), or on pairs that grow harder (Curriculum-DPO).

    .. math:: \ell = -\log\sigma(\beta\,(\Delta_w - \Delta_l))

    The loss is `dpo`'s. Tango 2 trains one epoch on the winners alone first; Curriculum-DPO orders the pairs by the gap
    of their scores (`diffpref.ranking.curriculum_floors`).

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: as in `dpo`. 2000 in Tango 2, and hard-coded in Curriculum-DPO, whose flag for it is ignored.

    Returns:
        (B,) positive losses, unreduced; ln 2 where the margin is 0.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Majumder et al., Tango 2, ACM MM 2024, declare-lab/tango ``tango2/models.py``; Croitoru et al., Curriculum
    DPO, CVPR 2025, CroitoruAlin/Curriculum-DPO ``train_stablediffusion.py``.
    Reduces to: `dpo`, always; it differs in the data.

    >>> import torch
    >>> loss = tango2(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]), beta=0.1)
    >>> round(loss.item(), 6)
    0.630258
    """
    return logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference)


@objective(
    "flow_dpo",
    kind="pairwise",
    source="Liu et al., Improving Video Generation with Human Feedback, arXiv:2501.13918, eq. 6",
    evidence="official",
    aliases=("video_dpo", "structural_dpo", "edit_dpo"),
    published=("denoising",),
    domain={"timesteps": (0.0, 1.0)},
)
def flow_dpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    timesteps: Tensor | None = None,
    beta: Positive = scale(tokens=0.1, denoising=500.0),
    beta_schedule: Literal["constant", "one_minus_t_sq"] = "constant",
) -> Tensor:
    r"""Compare two samples of a flow-matching model: images, edits of an image, or whole videos.

    .. math:: \ell = -\log\sigma(\beta_t\,(\Delta_w - \Delta_l)), \qquad
              \beta_t = \beta \;\text{ or }\; \beta\,(1 - t)^2

    The log-ratios are those of velocity errors, averaged over all elements and, for a video, all frames.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        timesteps: (B,) t in [0, 1], 1 = noise; needed with ``beta_schedule: one_minus_t_sq``.
        beta: as in `dpo`. Published: 500 for video, 100 for SD 3.5 (flow_grpo); 2000 is the author's advice for FLUX.
        beta_schedule: constant, the paper's recommendation, or what its derivation gives, which over-trains high noise.

    Returns:
        (B,) positive losses, unreduced; ln 2 where the margin is 0.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: the schedule needs timesteps and there are none, or they are not in [0, 1].

    Source: Liu et al., Improving Video Generation with Human Feedback, 2025, eq. 4 to 6; yifan123/flow_grpo
    ``train_sd3_dpo.py``, from which the factor 0.5 and the mean over elements come. StructuralDPO (arXiv:2506.03517)
    is this loss on guided pairs; for editing, the source image is part of all conditions.
    Reduces to: `dpo` with ``beta_schedule: constant``.

    >>> import torch
    >>> loss = flow_dpo(chosen_log_ratio=torch.tensor([0.5]), rejected_log_ratio=torch.tensor([-0.8]), beta=0.1)
    >>> round(loss.item(), 6)
    0.630258
    """
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    if beta_schedule == "one_minus_t_sq":
        if timesteps is None or bool(((timesteps < 0) | (timesteps > 1)).any()):
            raise ConfigError(
                "flow_dpo: beta_schedule 'one_minus_t_sq' needs timesteps in [0, 1], those of a flow-matching model"
                " that is asked at one for each pair; set beta_schedule: constant for others"
            )
        margin = (1 - timesteps).square() * margin
    return logistic(margin, preference)
