"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"curated_retraining": [{}, {"temperature": 0.4}]}


def curated_retraining(*, policy_list_logps, list_scores, list_mask=None, temperature):
    losses = []
    for i in range(len(policy_list_logps)):
        there = [k for k in range(policy_list_logps.shape[1]) if list_mask is None or list_mask[i, k] > 0]
        luce = np.exp([list_scores[i, k] / temperature for k in there])
        losses.append(sum(q * -policy_list_logps[i, k] for q, k in zip(luce / luce.sum(), there, strict=True)))
    return np.array(losses)
