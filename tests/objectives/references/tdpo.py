"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"tdpo1": [{}, {"beta": 0.7}], "tdpo2": [{}, {"beta": 0.7, "alpha": 1.5}, {"alpha": 0.0}]}


def tdpo1(*, chosen_log_ratio, rejected_log_ratio, chosen_kl, rejected_kl, beta):
    logit = (chosen_log_ratio - rejected_log_ratio) - (rejected_kl - chosen_kl)
    return np.log1p(np.exp(-beta * logit))


def tdpo2(*, chosen_log_ratio, rejected_log_ratio, chosen_kl, rejected_kl, beta, alpha, stopped):
    logit = (chosen_log_ratio - rejected_log_ratio) - alpha * (rejected_kl - stopped["chosen_kl"])
    return np.log1p(np.exp(-beta * logit))
