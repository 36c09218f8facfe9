"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "smpo_diffusion": [
        {"_optional": True},
        {"beta": 0.3, "gamma": 2.0, "score_range": 1.5, "_optional": True},
        {"gamma": 3.0, "weight_from": "preference", "_optional": True},
        {"weight_from": "beta_scale", "_optional": True},
    ]
}


def smpo_diffusion(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    chosen_score=None,
    rejected_score=None,
    preference=None,
    beta_scale=None,
    beta,
    weight_from,
    gamma,
    score_range,
):
    if weight_from == "beta_scale":
        weight = beta_scale
    else:
        p = preference
        if weight_from == "scores":
            r_w, r_l = chosen_score / score_range, rejected_score / score_range
            p = 1 / (1 + np.exp(r_l - r_w))
        weight = gamma * (2 * p - 1)
    return np.logaddexp(0, -beta * weight * (chosen_log_ratio - rejected_log_ratio))
