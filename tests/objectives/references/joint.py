"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "dove": [{}, {"beta": 0.7}],
    "mapl_intra": [{}, {"beta": 0.7}],
    "mapl": [{}, {"beta": 0.7, "intra_weight": 0.3, "inter_weight": 2.0}],
}


def dove(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta):
    p = 1.0 if preference is None else preference
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)


def mapl_intra(*, chosen_log_ratio, mismatched_log_ratio, beta):
    return np.logaddexp(0, beta * (mismatched_log_ratio - chosen_log_ratio))


def mapl(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    mismatched_log_ratio,
    chosen_score,
    rejected_score,
    beta,
    intra_weight,
    inter_weight,
):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    losses = np.logaddexp(0, -z) + intra_weight * np.logaddexp(0, beta * (mismatched_log_ratio - chosen_log_ratio))
    gap = chosen_score - rejected_score
    for i in range(len(z)):
        smaller = [np.logaddexp(0, z[j] - z[i]) for j in range(len(z)) if gap[j] < gap[i]]
        if smaller:
            losses[i] += inter_weight * np.mean(smaller)
    return losses
