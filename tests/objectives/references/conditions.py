"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"vdpo": [{}, {"beta": 0.7}], "bdhs": [{}, {"beta": 0.7, "gamma": 0.2}]}


def vdpo(*, chosen_log_ratio, rejected_log_ratio, preference=None, weight=None, beta):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    p = 1.0 if preference is None else preference
    w = 1.0 if weight is None else weight
    return w * (p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z))


def bdhs(*, chosen_log_ratio, rejected_log_ratio, online_log_ratio, beta, gamma):
    first = np.log1p(np.exp(-beta * (chosen_log_ratio - rejected_log_ratio)))
    second = np.log1p(np.exp(-beta * (chosen_log_ratio - online_log_ratio)))
    return gamma * first + (1 - gamma) * second
