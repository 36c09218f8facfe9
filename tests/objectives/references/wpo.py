"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "wpo": [
        {"length_normalize": False, "_optional": False},
        {"beta": 0.4, "_optional": True},
        {"beta": 0.4, "label_smoothing": 0.2, "_optional": True},
        {"beta": 0.4, "clamp": False, "_optional": True},
        {"_optional": True},
    ],
}


def wpo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    policy_chosen_logps,
    policy_rejected_logps,
    policy_chosen_collision,
    policy_rejected_collision,
    chosen_length=None,
    rejected_length=None,
    preference=None,
    beta,
    label_smoothing,
    clamp,
    length_normalize,
    stopped=None,
):
    s = stopped
    if s is None:
        s = {"policy_chosen_logps": policy_chosen_logps, "policy_chosen_collision": policy_chosen_collision}
        s |= {"policy_rejected_logps": policy_rejected_logps, "policy_rejected_collision": policy_rejected_collision}
    n_w, n_l = (chosen_length, rejected_length) if length_normalize else (1.0, 1.0)
    c_w = (s["policy_chosen_logps"] - s["policy_chosen_collision"]) / n_w
    c_l = (s["policy_rejected_logps"] - s["policy_rejected_collision"]) / n_l
    weight = np.exp(c_w) * np.exp(c_l)
    weight = np.minimum(1, weight) if clamp else weight
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    p = 1.0 if preference is None else preference
    p = p * (1 - label_smoothing) + (1 - p) * label_smoothing
    return weight * (p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z))
