"""Self-play preference optimisation: regression of each log-ratio onto how much its sample wins."""

from __future__ import annotations

from torch import Tensor

from diffpref.core.annotations import Positive, scale
from diffpref.core.errors import ConfigError
from diffpref.objectives.base import objective

__all__ = ["gpo", "sppo", "sppo_hard", "sppo_single"]

SOURCE = "Wu et al., arXiv:2405.00675, eq. 4.7; uclaml/SPPO sppo_loss"


@objective("sppo", kind="pairwise", source=SOURCE, evidence="official", signs={})
def sppo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_win_rate: Tensor | None = None,
    rejected_win_rate: Tensor | None = None,
    beta: Positive = scale(tokens=0.001, denoising=1000.0),
) -> Tensor:
    r"""Draw each log-ratio to a multiple of how much more often than not its sample wins.

    .. math:: \ell = \tfrac12 \big(\Delta_w - (p_w - \tfrac12) / \beta\big)^2
              + \tfrac12 \big(\Delta_l - (p_l - \tfrac12) / \beta\big)^2

    The targets are absolute, so that the chosen sample's likelihood cannot fall together with the rejected one's.

    Args:
        chosen_log_ratio: (B,) log-likelihood of the chosen sample under the policy minus that under the anchor, which
            is the previous iterate: the model that made the samples.
        rejected_log_ratio: (B,) the same for the rejected sample.
        chosen_win_rate: (B,) mean probability that the chosen sample beats a sample of the previous iterate (the
            released code counts a sample against itself, with 1/2); 1 where the batch has no such columns.
        rejected_win_rate: (B,) the same for the rejected sample; 0 where the batch has no such columns.
        beta: 1 / eta of the source; smaller asks for larger log-ratios. On a denoiser's log-ratios 1000 puts the
            largest target, 0.5 / beta, where those log-ratios come to lie after some hundred steps of DPO.

    Returns:
        (B,) non-negative losses, unreduced; ``((p_w - 1/2)^2 + (p_l - 1/2)^2) / (2 beta^2)`` where policy and anchor
        agree: about 1e5 at the default, so that clipping decides the step.

    Raises:
        ShapeError: the tensors differ in shape.
        ConfigError: one win rate without the other.

    Source: Wu et al., Self-Play Preference Optimization for Language Model Alignment, ICLR 2025, eq. 4.7; the factor
    1/2 and constants follow the official code (loss type ``sppo``).
    Reduces to: `sppo_hard` times 1/2 without win rates; `sppo_single` where the two win rates add up to 1.

    >>> import torch
    >>> one = {"chosen_log_ratio": torch.tensor([2.0]), "rejected_log_ratio": torch.tensor([-2.0])}
    >>> rates = {"chosen_win_rate": torch.tensor([0.8]), "rejected_win_rate": torch.tensor([0.3])}
    >>> round(sppo(**one, **rates, beta=0.1).item(), 4)
    0.5
    """
    if (chosen_win_rate is None) != (rejected_win_rate is None):
        raise ConfigError("sppo: chosen_win_rate and rejected_win_rate go together; give both, or none for hard labels")
    if chosen_win_rate is None or rejected_win_rate is None:
        return _regression(chosen_log_ratio - 0.5 / beta, rejected_log_ratio + 0.5 / beta)
    return _regression(
        chosen_log_ratio - (chosen_win_rate - 0.5) / beta, rejected_log_ratio - (rejected_win_rate - 0.5) / beta
    )


@objective(
    "sppo_hard",
    kind="pairwise",
    source=f"{SOURCE}; TRL DPOTrainer, loss type sppo_hard",
    evidence="official",
    signs={},
    same_as="sppo",
)
def sppo_hard(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    beta: Positive = scale(tokens=0.001, denoising=1000.0),
) -> Tensor:
    r"""Draw the chosen log-ratio up and the rejected one down to fixed targets.

    .. math:: \ell = \big(\Delta_w - 1 / (2\beta)\big)^2 + \big(\Delta_l + 1 / (2\beta)\big)^2

    Args:
        chosen_log_ratio: (B,) policy minus anchor log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        beta: smaller asks for larger log-ratios.

    Returns:
        (B,) non-negative losses, unreduced; 1 / (2 beta^2) where policy and anchor agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: TRL, ``loss_type="sppo_hard"``: the official code's loss for certain wins, without its factor 1/2.
    Reduces to: twice `sppo` without win rates.

    >>> import torch
    >>> one = {"chosen_log_ratio": torch.tensor([0.5]), "rejected_log_ratio": torch.tensor([-0.8])}
    >>> round(sppo_hard(**one, beta=0.1).item(), 4)
    37.89
    """
    return 2 * _regression(chosen_log_ratio - 0.5 / beta, rejected_log_ratio + 0.5 / beta)


@objective("sppo_single", kind="pairwise", source=SOURCE, evidence="official", signs={})
def sppo_single(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    preference: Tensor | None = None,
    beta: Positive = scale(tokens=0.001, denoising=1000.0),
) -> Tensor:
    r"""Draw the two log-ratios to opposite targets that follow the probability that one beats the other.

    .. math:: \ell = \tfrac12 \big(\Delta_w - (P - \tfrac12) / \beta\big)^2
              + \tfrac12 \big(\Delta_l + (P - \tfrac12) / \beta\big)^2

    Args:
        chosen_log_ratio: (B,) policy minus anchor log-likelihood of the chosen sample.
        rejected_log_ratio: (B,) the same for the rejected sample.
        preference: (B,) P(chosen is better) in [0, 1]; 1 where the batch has no such column. No gradient.
        beta: smaller asks for larger log-ratios.

    Returns:
        (B,) non-negative losses, unreduced; ``(P - 1/2)^2 / beta^2`` where policy and anchor agree.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Wu et al., Self-Play Preference Optimization, ICLR 2025; uclaml/SPPO, loss type ``sppo_single``.
    Reduces to: `sppo` with win rates P and 1 - P; `sppo_hard` times 1/2 for certain wins.

    >>> import torch
    >>> one = {"chosen_log_ratio": torch.tensor([2.0]), "rejected_log_ratio": torch.tensor([-2.0])}
    >>> round(sppo_single(**one, preference=torch.tensor([0.9]), beta=0.1).item(), 4)
    4.0
    """
    target = 0.5 / beta if preference is None else (preference - 0.5) / beta
    return _regression(chosen_log_ratio - target, rejected_log_ratio + target)


@objective(
    "gpo",
    kind="pairwise",
    source="Zhang et al., arXiv:2410.02197, section 5; general-preference-model, loss sppo_score",
    evidence="memory",
    signs={},
)
def gpo(
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    chosen_score: Tensor,
    rejected_score: Tensor,
    beta: Positive = scale(tokens=0.001, denoising=1000.0),
) -> Tensor:
    r"""Draw each log-ratio to a multiple of its sample's mean score against the others of its prompt.

    .. math:: \ell = \tfrac12 \big(\Delta_w - S_w / \beta\big)^2 + \tfrac12 \big(\Delta_l - S_l / \beta\big)^2

    Args:
        chosen_log_ratio: (B,) policy minus anchor log-likelihood of the chosen sample; the anchor is the previous
            iterate.
        rejected_log_ratio: (B,) the same for the rejected sample.
        chosen_score: (B,) mean preference score of the chosen sample against the K samples of its prompt, itself (0)
            among them, in any real unit: `diffpref.ranking.mean_margins` of a table of scores.
        rejected_score: (B,) the same for the rejected sample.
        beta: smaller asks for larger log-ratios.

    Returns:
        (B,) non-negative losses, unreduced.

    Raises:
        ShapeError: the tensors differ in shape.

    Source: Zhang et al., General Preference Modeling with Preference Representations, ICML 2025. Its trainer is not
    public; the data pipeline is, and takes ``table[i][j] - table[j][i]``.
    Reduces to: `sppo` where the scores are win rates minus 1/2.

    >>> import torch
    >>> one = {"chosen_log_ratio": torch.tensor([2.0]), "rejected_log_ratio": torch.tensor([-2.0])}
    >>> scores = {"chosen_score": torch.tensor([0.8]), "rejected_score": torch.tensor([-0.5])}
    >>> round(gpo(**one, **scores, beta=0.1).item(), 4)
    22.5
    """
    return _regression(chosen_log_ratio - chosen_score / beta, rejected_log_ratio - rejected_score / beta)


def _regression(chosen: Tensor, rejected: Tensor) -> Tensor:
    return 0.5 * chosen.square() + 0.5 * rejected.square()
