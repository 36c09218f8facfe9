"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"discopop": [{"beta": 0.3, "temperature": 0.5}, {}]}


def discopop(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta, temperature):
    d = beta * (chosen_log_ratio - rejected_log_ratio)
    both = []
    for z in (d, -d):
        m = 1 / (1 + np.exp(-z / temperature))
        both.append((1 - m) * np.logaddexp(0, -z) + m * np.exp(-z))
    p = 1.0 if preference is None else preference
    return p * both[0] + (1 - p) * both[1]
