"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "exo_pair": [{}, {"beta": 0.7, "label_smoothing": 0.1}, {"beta": 0.7, "target": "official"}],
    "exo": [{}, {"beta": 0.7, "reward_temperature": 0.5}],
}


def exo_pair(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta, label_smoothing, target):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    q_w, q_l = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))
    first, second = (1 - label_smoothing, label_smoothing) if target == "smoothed" else (1.0, np.exp(-10))
    p = 1.0 if preference is None else preference
    p_w, p_l = p * first + (1 - p) * second, p * second + (1 - p) * first
    return q_w * (-np.logaddexp(0, -z) - np.log(p_w)) + q_l * (-np.logaddexp(0, z) - np.log(p_l))


def exo(*, list_log_ratio, list_scores, list_mask=None, beta, reward_temperature):
    losses = []
    for i in range(len(list_log_ratio)):
        keep = np.ones(len(list_scores[i]), bool) if list_mask is None else list_mask[i] > 0
        s, r = beta * list_log_ratio[i][keep], list_scores[i][keep] / reward_temperature
        q, p = np.exp(s) / np.exp(s).sum(), np.exp(r) / np.exp(r).sum()
        losses.append((q * np.log(q / p)).sum())
    return np.array(losses)
