"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"spin": [{}, {"beta": 0.7, "link": "hinge"}]}


def spin(*, chosen_log_ratio, rejected_log_ratio, beta, link):
    margin = beta * (chosen_log_ratio - rejected_log_ratio)
    return np.logaddexp(0, -margin) if link == "logistic" else np.maximum(0, 1 - margin)
