"""Independent numpy implementations, from the specification's formulas."""

import math

import numpy as np

VARIANTS = {
    "lipo_lambda": [{}, {"beta": 1.3, "labels": "minmax"}],
    "lipo_pairwise": [
        {},
        {"beta": 0.7, "reduction": "sum"},
        {"beta": 0.7, "link": "hinge", "target_margin": 0.4},
    ],
    "lipo_pointwise": [{}, {"beta": 0.7, "link": "logistic", "labels": "minmax"}],
}


def lipo_lambda(*, list_log_ratio, list_scores, list_mask=None, beta, labels):
    losses = []
    for b in range(len(list_log_ratio)):
        kept = [k for k in range(list_log_ratio.shape[1]) if list_mask is None or list_mask[b, k] == 1]
        s = [beta * list_log_ratio[b, k] for k in kept]
        psi = [list_scores[b, k] for k in kept]
        if labels == "minmax":
            psi = [(p - min(psi)) / (max(psi) - min(psi)) for p in psi]
        rank = [1 + sum(other > mine for other in s) for mine in s]
        total = 0.0
        for i in range(len(kept)):
            for j in range(len(kept)):
                if psi[i] > psi[j]:
                    gain = abs((2 ** psi[i] - 1) - (2 ** psi[j] - 1))
                    discount = abs(1 / math.log(1 + rank[i]) - 1 / math.log(1 + rank[j]))
                    total += gain * discount * np.logaddexp(0, -(s[i] - s[j]))
        losses.append(total)
    return np.array(losses)


def lipo_pairwise(*, list_log_ratio, list_scores, list_mask=None, beta, link, target_margin, reduction):
    losses = []
    for b in range(len(list_log_ratio)):
        terms = []
        kept = [k for k in range(list_log_ratio.shape[1]) if list_mask is None or list_mask[b, k] == 1]
        for i in kept:
            for j in kept:
                if list_scores[b, i] > list_scores[b, j]:
                    margin = beta * (list_log_ratio[b, i] - list_log_ratio[b, j])
                    terms.append(np.logaddexp(0, -margin) if link == "logistic" else max(0.0, target_margin - margin))
        losses.append(np.sum(terms) if reduction == "sum" else np.mean(terms))
    return np.array(losses)


def lipo_pointwise(*, list_log_ratio, list_scores, list_mask=None, beta, link, labels):
    losses = []
    for b in range(len(list_log_ratio)):
        kept = [k for k in range(list_log_ratio.shape[1]) if list_mask is None or list_mask[b, k] == 1]
        s, psi = beta * list_log_ratio[b, kept], list_scores[b, kept]
        if labels == "minmax":
            psi = (psi - psi.min()) / (psi.max() - psi.min())
        if link == "square":
            losses.append(np.sum((s - psi) ** 2))
        else:
            losses.append(np.sum(psi * np.log1p(np.exp(-s)) + (1 - psi) * np.log1p(np.exp(s))))
    return np.array(losses)
