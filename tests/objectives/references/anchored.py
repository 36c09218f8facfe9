"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "nca_pair": [{"beta": 0.8}, {}],
    "apo_zero": [{}, {"beta": 0.7}],
    "apo_down": [{}, {"beta": 0.7}],
}


def nca_pair(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta):
    r_w, r_l = beta * chosen_log_ratio, beta * rejected_log_ratio
    p = 1.0 if preference is None else preference
    as_labelled = np.logaddexp(0, -r_w) + 0.5 * np.logaddexp(0, r_w) + 0.5 * np.logaddexp(0, r_l)
    flipped = np.logaddexp(0, -r_l) + 0.5 * np.logaddexp(0, r_l) + 0.5 * np.logaddexp(0, r_w)
    return p * as_labelled + (1 - p) * flipped


def apo_zero(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta):
    s_w, s_l = 1 / (1 + np.exp(-beta * chosen_log_ratio)), 1 / (1 + np.exp(-beta * rejected_log_ratio))
    p = 1.0 if preference is None else preference
    return p * ((1 - s_w) + s_l) + (1 - p) * ((1 - s_l) + s_w)


def apo_down(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta):
    u_w, u_l = chosen_log_ratio, rejected_log_ratio
    p = 1.0 if preference is None else preference
    as_labelled = 1 / (1 + np.exp(-beta * u_w)) + 1 - 1 / (1 + np.exp(-beta * (u_w - u_l)))
    flipped = 1 / (1 + np.exp(-beta * u_l)) + 1 - 1 / (1 + np.exp(-beta * (u_l - u_w)))
    return p * as_labelled + (1 - p) * flipped
