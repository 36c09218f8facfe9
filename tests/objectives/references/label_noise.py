"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "cdpo": [{}, {"beta": 0.7, "label_smoothing": 0.1}],
    "rdpo": [{}, {"beta": 0.7, "label_smoothing": 0.3}],
}


def cdpo(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta, label_smoothing):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    p = 1.0 if preference is None else preference
    p = p * (1 - label_smoothing) + (1 - p) * label_smoothing
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)


def rdpo(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta, label_smoothing):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    e = label_smoothing
    as_labelled = ((1 - e) * np.logaddexp(0, -z) - e * np.logaddexp(0, z)) / (1 - 2 * e)
    flipped = ((1 - e) * np.logaddexp(0, z) - e * np.logaddexp(0, -z)) / (1 - 2 * e)
    p = 1.0 if preference is None else preference
    return p * as_labelled + (1 - p) * flipped
