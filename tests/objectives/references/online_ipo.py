"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "ipo_md": [{"length_normalize": False}, {"tau": 0.4, "_optional": True}],
    "online_ipo_1": [{"length_normalize": False}, {"beta": 0.4, "_optional": True}],
    "online_ipo_1_list": [{}, {"beta": 0.4}],
    "online_ipo_2_list": [{}, {"beta": 0.4, "pairs": "by_policy"}],
}


def ipo_md(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    preference=None,
    chosen_length=None,
    rejected_length=None,
    tau,
    length_normalize,
):
    n_w, n_l = (chosen_length, rejected_length) if length_normalize else (1.0, 1.0)
    p = 1.0 if preference is None else preference
    return (chosen_log_ratio / n_w - rejected_log_ratio / n_l - (p - 0.5) / tau) ** 2


def online_ipo_1(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    chosen_win_rate,
    rejected_win_rate,
    chosen_length=None,
    rejected_length=None,
    beta,
    length_normalize,
):
    n_w, n_l = (chosen_length, rejected_length) if length_normalize else (1.0, 1.0)
    return (chosen_log_ratio / n_w - rejected_log_ratio / n_l - (chosen_win_rate - rejected_win_rate) / beta) ** 2


def online_ipo_1_list(*, list_log_ratio, list_win_rate, list_mask=None, beta):
    losses = []
    for b in range(len(list_log_ratio)):
        kept = [k for k in range(list_log_ratio.shape[1]) if list_mask is None or list_mask[b, k] == 1]
        h, p = list_log_ratio[b], list_win_rate[b]
        squares = [((h[i] - h[j]) - (p[i] - p[j]) / beta) ** 2 for i in kept for j in kept]
        losses.append(np.sum(squares) / len(kept) ** 2)
    return np.array(losses)


def online_ipo_2_list(
    *, list_log_ratio, policy_list_logps, list_preference_matrix, list_mask=None, beta, pairs, stopped
):
    losses = []
    for b in range(len(list_log_ratio)):
        kept = [k for k in range(list_log_ratio.shape[1]) if list_mask is None or list_mask[b, k] == 1]
        weight = np.exp(stopped["policy_list_logps"][b, kept]) if pairs == "by_policy" else np.ones(len(kept))
        weight = weight / weight.sum()
        h, matrix = list_log_ratio[b], list_preference_matrix[b]
        total = 0.0
        for i, w_i in zip(kept, weight, strict=True):
            for j, w_j in zip(kept, weight, strict=True):
                total += w_i * w_j * ((h[i] - h[j]) - (matrix[i, j] - 0.5) / beta) ** 2
        losses.append(total)
    return np.array(losses)
