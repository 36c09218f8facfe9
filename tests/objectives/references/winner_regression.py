"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"crpo": [{}, {"beta": 0.7, "sft_weight": 2.0}]}


def crpo(*, chosen_log_ratio, rejected_log_ratio, policy_chosen_logps, beta, sft_weight):
    return np.logaddexp(0, -beta * (chosen_log_ratio - rejected_log_ratio)) + sft_weight * -policy_chosen_logps
