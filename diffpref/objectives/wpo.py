"""Weighted Preference Optimization: pairs that the policy could have written itself count more."""

from __future__ import annotations

from torch import Tensor

from diffpref.core.annotations import HalfProbability, Positive, scale
from diffpref.objectives.base import objective
from diffpref.objectives.pair_links import logistic
from diffpref.objectives.weightings import wpo_weights

__all__ = ["wpo"]

CONFIDENCE = ("policy_chosen_logps", "policy_rejected_logps", "policy_chosen_collision", "policy_rejected_collision")


@objective(
    "wpo",
    kind="pairwise",
    source="Zhou et al., WPO: Enhancing RLHF with Weighted Preference Optimization, arXiv:2406.11827, eq. 2",
    evidence="official",
    signs={"chosen_log_ratio": "-", "rejected_log_ratio": "+"},
    stops=CONFIDENCE,
)
def wpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    policy_chosen_collision: Tensor,
    policy_rejected_collision: Tensor,
    preference: Tensor | None = None,
    chosen_length: Tensor | None = None,
    rejected_length: Tensor | None = None,
    beta: Positive = scale(tokens=0.01, denoising=500.0),
    label_smoothing: HalfProbability = 0.0,
    clamp: bool = True,
    length_normalize: bool = scale(tokens=True, denoising=False),
) -> Tensor:
    r"""DPO with each pair weighted by how likely the policy is to say both responses, compared with its own habit.

    .. math:: \ell = -\min\big(1, e^{c_w + c_l}\big) \log\sigma\big(\beta\,(\Delta_w - \Delta_l)\big), \qquad
              c = \frac{1}{n} \sum_t \Big(\log\pi(y_t) - \log \sum_v \pi(v)^2\Big)

    so that data written by another model count as if they were the policy's own. The weight is a constant.

    Args:
        chosen_log_ratio: (B,) policy minus reference log-likelihood of the chosen response.
        rejected_log_ratio: (B,) the same for the rejected response.
        policy_chosen_logps: (B,) log-likelihood of the chosen response under the policy, for its weight. No gradient.
        policy_rejected_logps: (B,) the same for the rejected response.
        policy_chosen_collision: (B,) log-probability that two tokens drawn by the policy agree, summed over the places
            of the chosen response. No gradient.
        policy_rejected_collision: (B,) the same for the rejected response.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        chosen_length: (B,) tokens of the chosen response; needed with ``length_normalize``. No gradient.
        rejected_length: (B,) the same for the rejected response.
        beta: as of `dpo`.
        label_smoothing: assumed probability that a label is wrong, in [0, 0.5).
        clamp: let no weight be above 1, as the official code does; TRL does not.
        length_normalize: confidences are of the mean token. Denoisers' log-likelihoods are means already: of Gaussians,
            of which two draws agree with log-probability -ln 2 / 2 an element.

    Returns:
        (B,) losses, unreduced and multiplied by the weights; their plain mean is meant.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: ``length_normalize`` without lengths.

    Source: Zhou et al., WPO, EMNLP 2024, eq. 2; code: wzhouad/WPO ``WPOTrainer``, TRL ``use_weighting``.
    Reduces to: `dpo` where both responses are as likely as the policy's own.

    >>> import torch
    >>> ratios = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> logps = {"policy_chosen_logps": torch.tensor([-12.5]), "policy_rejected_logps": torch.tensor([-14.0])}
    >>> habit = {"policy_chosen_collision": torch.tensor([-8.5]), "policy_rejected_collision": torch.tensor([-11.6])}
    >>> lengths = {"chosen_length": torch.tensor([10.0]), "rejected_length": torch.tensor([12.0])}
    >>> round(wpo(**ratios, **logps, **habit, **lengths).item(), 6)
    0.376852
    """
    weight = wpo_weights(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        policy_chosen_collision=policy_chosen_collision,
        policy_rejected_collision=policy_rejected_collision,
        chosen_length=chosen_length,
        rejected_length=rejected_length,
        clamp=clamp,
        length_normalize=length_normalize,
    )
    return weight * logistic(beta * (chosen_log_ratio - rejected_log_ratio), preference, label_smoothing)
