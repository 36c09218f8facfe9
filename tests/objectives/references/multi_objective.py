"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "modpo": [
        {},
        {"beta": 0.7, "weight": 0.4, "score_weights": (0.3, 0.2, 0.1)},
        {"link": "hinge", "weight": 0.8},
    ]
}


def modpo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    chosen_scores,
    rejected_scores,
    preference=None,
    beta,
    weight,
    score_weights,
    link,
):
    p = 1.0 if preference is None else preference
    others = np.full(3, (1 - weight) / 3) if score_weights is None else np.array(score_weights)
    r_w = (beta * chosen_log_ratio - (chosen_scores * others).sum(1)) / weight
    r_l = (beta * rejected_log_ratio - (rejected_scores * others).sum(1)) / weight
    z = r_w - r_l
    if link == "hinge":
        return p * np.maximum(0, 1 - z) + (1 - p) * np.maximum(0, 1 + z)
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
