"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "irpo_ranking": [
        {"length_normalize": False},
        {"beta": 0.6, "gain": "place", "normalize": False, "_optional": True},
        {"beta": 0.6, "gain": "linear", "length_normalize": False},
    ]
}


def irpo_ranking(
    *,
    list_log_ratio,
    list_scores,
    ranks,
    list_length=None,
    list_mask=None,
    beta,
    gain,
    normalize,
    length_normalize,
):
    losses = []
    for b in range(len(list_log_ratio)):
        kept = [k for k in range(list_log_ratio.shape[1]) if list_mask is None or list_mask[b, k] == 1]
        loss = 0.0
        r = {k: list_log_ratio[b, k] / (list_length[b, k] if length_normalize else 1.0) for k in kept}
        for i in kept:
            pos = 1 + ranks[b, i]
            w = {
                "ndcg": (2 ** list_scores[b, i] - 1) / np.log2(1 + pos),
                "place": 1 / np.log2(1 + pos),
                "linear": (2 ** list_scores[b, i] - 1) / pos,
            }[gain]
            rivals = [j for j in kept if j != i or not normalize]
            z = -np.log(sum(np.exp(beta * (r[j] - r[i])) for j in rivals))
            if normalize:
                z += np.log(len(kept) - 1)
            loss += w * np.log1p(np.exp(-z))
        losses.append(loss / len(kept) if normalize else loss)
    return np.array(losses)
