"""Independent numpy implementations, from the formulas."""

import numpy as np

VARIANTS = {"log_ratio_penalty": [{}, {"estimator": "unbiased"}]}


def kl_penalty(*, chosen_kl):
    return 1.0 * chosen_kl


def log_ratio_penalty(*, chosen_log_ratio, estimator):
    if estimator == "square":
        return 0.5 * chosen_log_ratio**2
    return np.exp(-chosen_log_ratio) - 1 + chosen_log_ratio


def chosen_floor(*, chosen_log_ratio):
    return np.maximum(0.0, -chosen_log_ratio)
