"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "aot": [{"beta": 0.6}, {"beta": 0.6, "label_smoothing": 0.2}, {}],
    "aot_unpaired": [{"beta": 0.6}, {"beta": 0.6, "label_smoothing": 0.2}, {}],
}


def aot(
    *,
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    beta,
    label_smoothing,
):
    d = np.sort(policy_chosen_logps - policy_rejected_logps)
    z = beta * (d - np.sort(reference_chosen_logps - reference_rejected_logps))
    return (1 - label_smoothing) * np.logaddexp(0, -z) + label_smoothing * np.logaddexp(0, z)


def aot_unpaired(*, chosen_log_ratio, rejected_log_ratio, beta, label_smoothing):
    z = beta * (np.sort(chosen_log_ratio) - np.sort(rejected_log_ratio))
    return (1 - label_smoothing) * np.logaddexp(0, -z) + label_smoothing * np.logaddexp(0, z)
