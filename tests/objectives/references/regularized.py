"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "rpo": [
        {"nll": "seq_sum", "beta": 0.7, "nll_weight": 0.2, "_optional": False},
        {"nll": "paper", "beta": 0.7, "nll_weight": 0.2},
        {"_optional": True},
        {"_optional": True, "nll": "token_mean_seq", "nll_weight": 1.0},
    ],
}


def rpo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    policy_chosen_logps,
    preference=None,
    chosen_length=None,
    beta,
    nll_weight,
    nll,
):
    p = 1.0 if preference is None else preference
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    imitation = -p * policy_chosen_logps
    if nll == "token_mean_seq":
        imitation = imitation / chosen_length
    elif nll == "token_mean_batch":
        imitation = np.full_like(imitation, imitation.sum() / chosen_length.sum())
    elif nll == "paper":
        imitation = beta * imitation
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z) + nll_weight * imitation
