"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "diffusion_dpo_ipo": [{}, {"beta": 0.4}],
    "diffusion_dpo_hinge": [{}, {"beta": 0.4}],
    "align_anything": [{}, {"beta_coeff": 0.4}, {"beta_coeff": 0.3, "loss_type": "hinge"}],
}


def diffusion_dpo_ipo(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta):
    d_w, d_l = -2 * chosen_log_ratio, -2 * rejected_log_ratio  # policy's minus reference's errors
    z = -(d_w - d_l)
    p = 1.0 if preference is None else preference
    return p * (z - 1 / (2 * beta)) ** 2 + (1 - p) * (-z - 1 / (2 * beta)) ** 2


def diffusion_dpo_hinge(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta):
    d_w, d_l = -2 * chosen_log_ratio, -2 * rejected_log_ratio
    z = -(d_w - d_l)
    p = 1.0 if preference is None else preference
    return p * np.maximum(0, 1 - beta * z) + (1 - p) * np.maximum(0, 1 + beta * z)


def align_anything(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta_coeff, loss_type):
    logits = beta_coeff * 2 * (chosen_log_ratio - rejected_log_ratio)
    p = 1.0 if preference is None else preference
    if loss_type == "hinge":
        return p * np.maximum(0, 1 - logits) + (1 - p) * np.maximum(0, 1 + logits)
    return p * np.logaddexp(0, -logits) + (1 - p) * np.logaddexp(0, logits)
