"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"dpop": [{"dpop_lambda": 3.0}, {"beta": 0.1, "dpop_lambda": 0.5}]}


def dpop(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta, dpop_lambda):
    u_w, u_l = chosen_log_ratio, rejected_log_ratio
    z = beta * (u_w - u_l - dpop_lambda * np.maximum(0, -u_w))
    swapped = beta * (u_l - u_w - dpop_lambda * np.maximum(0, -u_l))
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, -swapped)
