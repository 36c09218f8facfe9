"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "refl": [{}, {"grad_scale": 0.5, "target": 0.3}],
    "alignprop": [{}, {"loss_coeff": 0.5, "target": 0.3}, {"loss_coeff": 0.5, "target": 0.3, "distance": "absolute"}],
}


def refl(*, policy_score, grad_scale, target):
    return grad_scale * np.maximum(0, target - policy_score)


def alignprop(*, policy_score, loss_coeff, target, distance):
    return loss_coeff * (np.abs(policy_score - target) if distance == "absolute" else target - policy_score)


def draft(*, policy_score):
    return -policy_score
