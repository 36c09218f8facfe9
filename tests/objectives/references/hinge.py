"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "slic_hf": [{}, {"delta": 0.3, "nll_weight": 0.7}],
    "slic_hf_target": [{}, {"delta": 0.3, "nll_weight": 0.7}],
    "rso": [{"beta": 0.4}, {}],
    "rso_sigmoid_norm": [{}, {"beta": 0.7}],
    "rso_hinge": [{"beta": 0.4}, {}],
}


def slic_hf(*, policy_chosen_logps, policy_rejected_logps, preference=None, delta, nll_weight):
    d = policy_chosen_logps - policy_rejected_logps
    p = 1.0 if preference is None else preference
    calibration = p * np.maximum(0, delta - d) + (1 - p) * np.maximum(0, delta + d)
    return calibration - p * nll_weight * policy_chosen_logps


def slic_hf_target(
    *, policy_chosen_logps, policy_rejected_logps, policy_gold_logps, preference=None, delta, nll_weight
):
    d = policy_chosen_logps - policy_rejected_logps
    p = 1.0 if preference is None else preference
    calibration = p * np.maximum(0, delta - d) + (1 - p) * np.maximum(0, delta + d)
    return calibration - nll_weight * policy_gold_logps


def rso(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    p = 1.0 if preference is None else preference
    return p * np.maximum(0, 1 - z) + (1 - p) * np.maximum(0, 1 + z)


def rso_sigmoid_norm(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)


def rso_hinge(*, policy_chosen_logps, policy_rejected_logps, preference=None, beta):
    z = beta * (policy_chosen_logps - policy_rejected_logps)
    p = 1.0 if preference is None else preference
    return p * np.maximum(0, 1 - z) + (1 - p) * np.maximum(0, 1 + z)
