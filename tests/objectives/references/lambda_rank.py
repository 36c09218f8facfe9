"""Independent numpy implementations, from the specification's formulas."""

import itertools

import numpy as np

VARIANTS = {
    "rank_dpo": [
        {},
        {"beta": 0.7, "log_base": "2"},
        {"rank_source": "predicted", "beta": 0.3},
        {"pair_norm": "mean", "beta": 1.0},
        {"labels": "win_shares", "beta": 1.0},
    ]
}


def rank_dpo(*, list_log_ratio, list_scores, list_mask=None, beta, log_base, rank_source, pair_norm, labels):
    losses = []
    for i in range(len(list_log_ratio)):
        there = [k for k in range(list_log_ratio.shape[1]) if list_mask is None or list_mask[i, k] > 0]
        s, phi = [-2 * list_log_ratio[i, k] for k in there], [list_scores[i, k] for k in there]
        if labels == "win_shares":
            phi = [sum(one > other for other in phi) / (len(there) - 1) for one in phi]
        by = phi if rank_source == "target" else [-value for value in s]
        order = sorted(range(len(there)), key=lambda k, by=by: -by[k])
        tau = {k: place + 1 for place, k in enumerate(order)}
        log = np.log if log_base == "e" else np.log2
        total, pairs = 0.0, 0
        for a, b in itertools.permutations(range(len(there)), 2):
            pairs += a < b
            if phi[a] > phi[b]:
                gains = abs((2 ** phi[a] - 1) - (2 ** phi[b] - 1))
                delta = gains * abs(1 / log(1 + tau[a]) - 1 / log(1 + tau[b]))
                total += delta * np.logaddexp(0, beta / 2 * (s[a] - s[b]))
        losses.append(total / pairs if pair_norm == "mean" else total)
    return np.array(losses)
