"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "sppo": [{}, {"beta": 0.3}],
    "sppo_hard": [{}, {"beta": 0.05}],
    "sppo_single": [{}, {"beta": 0.3}],
    "gpo": [{}, {"beta": 0.3}],
}


def sppo(*, chosen_log_ratio, rejected_log_ratio, chosen_win_rate=None, rejected_win_rate=None, beta):
    p_w, p_l = (1.0, 0.0) if chosen_win_rate is None else (chosen_win_rate, rejected_win_rate)
    first = chosen_log_ratio - (p_w - 0.5) / beta
    second = rejected_log_ratio - (p_l - 0.5) / beta
    return np.square(first) / 2 + np.square(second) / 2


def sppo_hard(*, chosen_log_ratio, rejected_log_ratio, beta):
    return np.square(chosen_log_ratio - 1 / (2 * beta)) + np.square(rejected_log_ratio + 1 / (2 * beta))


def sppo_single(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta):
    p = 1.0 if preference is None else preference
    first, second = chosen_log_ratio - (p - 0.5) / beta, rejected_log_ratio + (p - 0.5) / beta
    return (first**2 + second**2) / 2


def gpo(*, chosen_log_ratio, rejected_log_ratio, chosen_score, rejected_score, beta):
    first, second = chosen_log_ratio - chosen_score / beta, rejected_log_ratio - rejected_score / beta
    return (first**2 + second**2) / 2
