"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "madpo": [
        {"tau": 0.5},
        {"beta": 0.7, "c_min": 0.2, "c_max": 3.0, "steepness": 2.0, "tau": -0.4},
        {"c_min": 1.0, "c_max": 1.0},
    ],
    "sem_dpo": [{}, {"beta": 0.7, "alpha": 2.5}],
}


def madpo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    chosen_score,
    rejected_score,
    preference=None,
    beta,
    c_min,
    c_max,
    steepness,
    tau,
):
    h = chosen_score - rejected_score
    weight = np.ones_like(h)
    if c_min != 1:
        odds = (c_max - 1) / (1 - c_min) * np.exp(steepness * (np.abs(h) - tau))
        c = c_min + (c_max - c_min) / (1 + odds)
        weight = np.where(h > -tau, (1 / (1 + np.exp(-c * h))) / (1 / (1 + np.exp(-h))), 1.0)
    p = 1.0 if preference is None else preference
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    return weight * (p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z))


def sem_dpo(*, chosen_log_ratio, rejected_log_ratio, chosen_similarity, preference=None, beta, alpha):
    distance = 1 - chosen_similarity
    p = 1.0 if preference is None else preference
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    return np.exp(-alpha * distance) * (p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z))
