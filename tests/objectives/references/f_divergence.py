"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "f_dpo": [
        {"beta": 0.5},
        {"divergence": "js"},
        {"divergence": "alpha", "alpha": 0.3},
        {"divergence": "reverse_kl"},
    ]
}


def f_dpo(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta, divergence, alpha):
    t_w, t_l = np.exp(chosen_log_ratio), np.exp(rejected_log_ratio)
    derivative = {
        "reverse_kl": lambda t: np.log(t) + 1,
        "forward_kl": lambda t: -1 / t,
        "js": lambda t: np.log(2 * t / (1 + t)),
        "alpha": lambda t: (1 - t**-alpha) / alpha,
    }[divergence]
    z = beta * (derivative(t_w) - derivative(t_l))
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
