"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"diffusion_dro": [{}, {"margin": 0.5}]}


def diffusion_dro(*, gold_log_ratio, online_log_ratio, margin):
    d = -2 * gold_log_ratio - -2 * online_log_ratio  # errors above the reference's: the expert's minus the policy's
    return np.where(d + margin > 0, d + margin, 0.0)
