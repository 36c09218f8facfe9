"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"mapo": [{"num_train_timesteps": 3}, {"beta": 0.5, "snr_value": 1.5, "num_train_timesteps": 20}, {}]}


def mapo(*, policy_chosen_logps, policy_rejected_logps, beta, snr_value, num_train_timesteps):
    e_w, e_l = -2 * policy_chosen_logps, -2 * policy_rejected_logps
    g_w = (snr_value * e_w) / (np.exp(snr_value * e_w) - 1)
    g_l = (snr_value * e_l) / (np.exp(snr_value * e_l) - 1)
    return e_w + beta * np.logaddexp(0, -num_train_timesteps * (g_w - g_l))
