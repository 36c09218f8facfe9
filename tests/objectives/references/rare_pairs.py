"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "video_dpo_omniscore": [{}, {"beta": 0.7, "alpha": 0.5}],
    "video_dpo_omniscore_script": [{"beta": 0.4}, {"beta": 0.7, "alpha": 0.5}],
}


def video_dpo_omniscore(*, chosen_log_ratio, rejected_log_ratio, preference=None, weight=None, beta, alpha):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    p = 1.0 if preference is None else preference
    w = 1.0 if weight is None else weight
    return w**alpha * (p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z))


def video_dpo_omniscore_script(
    *,
    policy_chosen_prediction,
    policy_rejected_prediction,
    reference_chosen_prediction,
    reference_rejected_prediction,
    chosen_target,
    rejected_target,
    weight=None,
    beta,
    alpha,
):
    axes = tuple(range(1, chosen_target.ndim - 1))
    e_w = ((policy_chosen_prediction - chosen_target) ** 2).mean(axes)
    e_l = ((policy_rejected_prediction - rejected_target) ** 2).mean(axes)
    r_w = ((reference_chosen_prediction - chosen_target) ** 2).mean(axes)
    r_l = ((reference_rejected_prediction - rejected_target) ** 2).mean(axes)
    inside = -0.5 * beta * ((e_w - e_l) - (r_w - r_l))
    w = 1.0 if weight is None else weight
    return w**alpha * np.logaddexp(0, -inside).mean(1)
