"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "ddim_inpo": [{}, {"beta": 0.7}],
    "dcpo": [{}, {"beta": 0.7}],
    "tango2": [{}, {"beta": 0.7}],
    "flow_dpo": [{}, {"beta": 0.7, "beta_schedule": "one_minus_t_sq", "_optional": True}],
}


def ddim_inpo(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)


def dcpo(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)


def tango2(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)


def flow_dpo(*, chosen_log_ratio, rejected_log_ratio, preference=None, timesteps=None, beta, beta_schedule):
    beta_t = beta if beta_schedule == "constant" else beta * (1 - timesteps) ** 2
    # errors: e = -2 h up to the reference's, and the printed -beta_t / 2
    d_w, d_l = -2 * chosen_log_ratio, -2 * rejected_log_ratio
    z = -(beta_t / 2) * (d_w - d_l)
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
