"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "hypo": [{"kl_weight": 0.3}, {"beta": 0.7, "kl_weight": 0.1}],
    "online_kl": [{}, {"baseline": "none"}],
    "hypo_clip": [{}, {"beta": 0.7}],
}


def hypo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    policy_online_logps,
    reference_online_logps,
    preference=None,
    stopped=None,
    beta,
    kl_weight,
):
    p = 1.0 if preference is None else preference
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    still = policy_online_logps if stopped is None else stopped["policy_online_logps"]
    surrogate = policy_online_logps * (still - reference_online_logps)
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z) + kl_weight * surrogate


def online_kl(*, policy_list_logps, reference_list_logps, stopped=None, baseline):
    still = policy_list_logps if stopped is None else stopped["policy_list_logps"]
    u, count = still - reference_list_logps, policy_list_logps.shape[1]
    b = np.zeros_like(u)
    if baseline == "leave_one_out":
        for k in range(count):
            b[:, k] = np.delete(u, k, axis=1).mean(axis=1)
    return (policy_list_logps * (u - b)).mean(axis=1)


def hypo_clip(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    reference_chosen_logps,
    reference_rejected_logps,
    preference=None,
    beta,
):
    p = 1.0 if preference is None else preference
    lp_w, lp_l = chosen_log_ratio + reference_chosen_logps, rejected_log_ratio + reference_rejected_logps
    z = beta * (lp_w - lp_l - np.maximum(0, reference_chosen_logps - reference_rejected_logps))
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
