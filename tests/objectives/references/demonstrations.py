"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "bridge_sft": [
        {"length_normalize": False, "beta": 0.5},
        {"length_normalize": False, "divergence": "total_variation"},
        {"length_normalize": False, "divergence": "hellinger"},
        {"length_normalize": False, "divergence": "reverse_kl"},
        {"length_normalize": False, "divergence": "js"},
        {"_optional": True},
    ]
}


def bridge_sft(*, chosen_log_ratio, chosen_length=None, beta, divergence, length_normalize):
    x = beta * chosen_log_ratio / (chosen_length if length_normalize else 1.0)
    if divergence == "total_variation":
        return -x
    if divergence == "chi2":
        return -(x - x**2 / 4)
    lowest = {"hellinger": -0.9, "reverse_kl": -40.0, "js": -0.65}[divergence]
    inside = np.maximum(x, lowest)
    if divergence == "hellinger":
        value, slope = inside / (1 + inside), 1 / (1 + inside) ** 2
    elif divergence == "reverse_kl":
        value, slope = -np.exp(-inside - 1), np.exp(-inside - 1)
    else:
        value, slope = np.log(2 - np.exp(-inside)), np.exp(-inside) / (2 - np.exp(-inside))
    return -np.where(x < lowest, value + slope * (x - lowest), value)
