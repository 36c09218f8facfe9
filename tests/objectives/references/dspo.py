"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"dspo": [{"beta": 0.5}, {"beta": 0.9, "variant": "sdxl_script"}]}


def dspo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    policy_chosen_prediction,
    reference_chosen_prediction,
    chosen_target,
    beta,
    variant,
):
    losses = []
    for i in range(len(chosen_log_ratio)):
        z = 0.5 * beta * 2 * (chosen_log_ratio[i] - rejected_log_ratio[i])
        doubt = 1 - 1 / (1 + np.exp(-z))
        moved = policy_chosen_prediction[i] - reference_chosen_prediction[i]
        if variant == "sd15":
            losses.append((((policy_chosen_prediction[i] - chosen_target[i]) - beta * doubt * moved) ** 2).mean())
        elif (moved**2).mean() >= 0.1:
            losses.append(((doubt * moved) ** 2).mean())
        else:
            losses.append(doubt**2)
    return np.array(losses)
