"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "ln_dpo": [
        {"length_normalize": False, "beta": 0.8, "_optional": False},
        {"_optional": True, "beta": 0.8},
        {"_optional": True},
    ],
    "r_dpo": [{}, {"beta": 0.6, "length_weight": 0.2}],
}


def ln_dpo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    preference=None,
    chosen_length=None,
    rejected_length=None,
    beta,
    length_normalize,
):
    n_w, n_l = (chosen_length, rejected_length) if length_normalize else (1.0, 1.0)
    z = beta * (chosen_log_ratio / n_w - rejected_log_ratio / n_l)
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)


def r_dpo(
    *, chosen_log_ratio, rejected_log_ratio, chosen_length, rejected_length, preference=None, beta, length_weight
):
    z = beta * (chosen_log_ratio - rejected_log_ratio) + length_weight * (chosen_length - rejected_length)
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
