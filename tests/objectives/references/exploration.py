"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "selm": [{"beta": 0.7, "alpha": 0.3}],
    "xpo": [{"beta": 0.7, "alpha": 0.3}],
    "vpo": [{"beta": 0.7, "alpha": 0.3}, {"attitude": "pessimistic", "alpha": 0.5}],
}


def selm(*, chosen_log_ratio, rejected_log_ratio, calibration_log_ratio, preference=None, beta, alpha):
    p = 1.0 if preference is None else preference
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z) + alpha * beta * calibration_log_ratio


def xpo(*, chosen_log_ratio, rejected_log_ratio, policy_calibration_logps, preference=None, beta, alpha):
    p = 1.0 if preference is None else preference
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z) + alpha * policy_calibration_logps


def vpo(*, chosen_log_ratio, rejected_log_ratio, calibration_log_ratio, preference=None, beta, alpha, attitude):
    p = 1.0 if preference is None else preference
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    value = -beta * calibration_log_ratio
    bonus = alpha * value if attitude == "optimistic" else -alpha * value
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z) - bonus
