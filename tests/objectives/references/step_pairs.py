"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "d3po": [{"eps": 0.9}, {"beta": 0.7, "eps": 0.5}],
    "spo": [{"eps": 0.9, "beta": 1.0}, {"eps": 0.5}],
    "lpo": [{"eps": 0.9, "beta": 1.0}, {"eps": 0.5, "beta": 5.0}],
}


def d3po(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta, eps):
    u_0 = np.log(np.clip(np.exp(chosen_log_ratio), 1 - eps, 1 + eps))
    u_1 = np.log(np.clip(np.exp(rejected_log_ratio), 1 - eps, 1 + eps))
    h_0 = 1.0 if preference is None else 2 * preference - 1
    return np.logaddexp(0, -beta * (u_0 * h_0 - u_1 * h_0))


def spo(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta, eps):
    u_w = np.log(np.clip(np.exp(chosen_log_ratio), 1 - eps, 1 + eps))
    u_l = np.log(np.clip(np.exp(rejected_log_ratio), 1 - eps, 1 + eps))
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -beta * (u_w - u_l)) + (1 - p) * np.logaddexp(0, beta * (u_w - u_l))


def lpo(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta, eps):
    u_w = np.log(np.clip(np.exp(chosen_log_ratio), 1 - eps, 1 + eps))
    u_l = np.log(np.clip(np.exp(rejected_log_ratio), 1 - eps, 1 + eps))
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -beta * (u_w - u_l)) + (1 - p) * np.logaddexp(0, beta * (u_w - u_l))
