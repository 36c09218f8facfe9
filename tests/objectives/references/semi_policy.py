"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"seppo": [{}, {"beta": 0.7, "aaf": "indicator"}, {"aaf": "none"}, {"beta": 1.0, "zero_sign": 0}]}


def seppo(*, chosen_log_ratio, rejected_log_ratio, beta, aaf, zero_sign):
    anchor = 2 * chosen_log_ratio  # the reference's error minus the policy's
    if aaf == "sign":
        a = np.sign(anchor) + (anchor == 0) * zero_sign
    else:
        a = np.ones_like(anchor) if aaf == "none" else (anchor > 0).astype(float)
    return np.logaddexp(0, -beta * (chosen_log_ratio - a * rejected_log_ratio))
