"""Independent numpy implementations, from the specification's formulas."""

import math

import numpy as np

VARIANTS = {
    "mcts_dpo": [
        {"conservative": False},
        {"beta": 0.7},
        {"link": "square", "length_penalty": 0.5, "_optional": True},
    ],
    "tpo_tree": [{}, {"beta": 1.3, "weights": "dissimilarity"}],
}


def mcts_dpo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    chosen_visits,
    rejected_visits,
    chosen_length=None,
    rejected_length=None,
    beta,
    conservative,
    link,
    length_penalty,
):
    if link == "square":
        h_w, h_l = (
            chosen_log_ratio / chosen_length**length_penalty,
            rejected_log_ratio / rejected_length**length_penalty,
        )
        return (h_w - h_l - 1 / (2 * beta)) ** 2
    m = beta * (chosen_log_ratio - rejected_log_ratio)
    conf = 1 / (1 + rejected_visits / np.maximum(1, chosen_visits))
    eps = np.minimum(1 - conf, 0.5) if conservative else 0.0
    return (1 - eps) * np.log1p(np.exp(-m)) + eps * np.log1p(np.exp(m))


def tpo_tree(
    *,
    list_segment_log_ratio,
    policy_list_segment_embedding,
    list_segment_mask,
    list_scores,
    list_mask=None,
    beta,
    weights,
    stopped,
):
    losses = []
    for b in range(len(list_scores)):
        kept = [k for k in range(list_scores.shape[1]) if list_mask is None or list_mask[b, k] == 1]
        psi = list_scores[b, kept]
        best = kept[int(np.argmax(psi))]
        psi = (psi - psi.min()) / (psi.max() - psi.min())
        s = []
        for k in kept:
            total, norm = 0.0, 0.0
            for step in np.flatnonzero(list_segment_mask[b, k]):
                e, e_best = (stopped["policy_list_segment_embedding"][b, n, step] for n in (k, best))
                cos = e @ e_best / math.sqrt((e @ e) * (e_best @ e_best)) if list_segment_mask[b, best, step] else 0.0
                w = 1 + cos if weights == "similarity" else 1 - cos
                w = 1.0 if k == best else w
                total, norm = total + w * list_segment_log_ratio[b, k, step], norm + w
            s.append(beta * total / norm)
        rank = [1 + sum(other > mine for other in s) for mine in s]
        loss = 0.0
        for i in range(len(kept)):
            for j in range(len(kept)):
                if psi[i] > psi[j]:
                    discount = abs(1 / math.log(1 + rank[i]) - 1 / math.log(1 + rank[j]))
                    loss += abs(2 ** psi[i] - 2 ** psi[j]) * discount * np.logaddexp(0, -(s[i] - s[j]))
        losses.append(loss)
    return np.array(losses)
