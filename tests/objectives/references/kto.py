"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "kto": [{}, {"beta": 0.7, "desirable_weight": 0.8, "undesirable_weight": 1.33}],
    "apo_zero_unpaired": [{}, {"beta": 0.7, "desirable_weight": 0.8, "undesirable_weight": 1.33}],
    "kto_pair": [{}, {"beta": 0.7}],
}


def kto(*, log_ratio, label, mismatched_log_ratio, beta, desirable_weight, undesirable_weight, stopped=None):
    mismatched = mismatched_log_ratio if stopped is None else stopped["mismatched_log_ratio"]
    z0 = max(0.0, mismatched.mean())
    good = desirable_weight * (1 - 1 / (1 + np.exp(-beta * (log_ratio - z0))))
    bad = undesirable_weight * (1 - 1 / (1 + np.exp(-beta * (z0 - log_ratio))))
    return label * good + (1 - label) * bad


def apo_zero_unpaired(*, log_ratio, label, beta, desirable_weight, undesirable_weight):
    s = 1 / (1 + np.exp(-beta * log_ratio))
    return label * desirable_weight * (1 - s) + (1 - label) * undesirable_weight * s


def kto_pair(*, chosen_log_ratio, rejected_log_ratio, beta, stopped=None):
    seen = {"chosen_log_ratio": chosen_log_ratio, "rejected_log_ratio": rejected_log_ratio}
    seen = seen if stopped is None else stopped
    kl_w, kl_l = max(0.0, seen["chosen_log_ratio"].mean()), max(0.0, seen["rejected_log_ratio"].mean())
    chosen = 1 - 1 / (1 + np.exp(-beta * (chosen_log_ratio - kl_l)))
    rejected = 1 - 1 / (1 + np.exp(-beta * (kl_w - rejected_log_ratio)))
    return 0.5 * chosen + 0.5 * rejected
