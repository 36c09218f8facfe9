"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"dpo": [{}, {"beta": 0.7, "label_smoothing": 0.2}]}


def dpo(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta, label_smoothing):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    p = np.ones_like(z) if preference is None else preference
    p = p * (1 - label_smoothing) + (1 - p) * label_smoothing
    return p * np.log1p(np.exp(-z)) + (1 - p) * np.log1p(np.exp(z))
