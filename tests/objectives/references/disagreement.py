"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"inversion_dpo": [{"beta": 1.3}, {"beta": 0.7, "sign": "reference_trajectory"}]}


def inversion_dpo(*, chosen_segment_kl, rejected_segment_kl, preference=None, beta, sign):
    n = chosen_segment_kl.shape[1]
    z = 0.5 * beta * (chosen_segment_kl.sum(1) - rejected_segment_kl.sum(1)) / n
    z = z if sign == "code" else -z
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
