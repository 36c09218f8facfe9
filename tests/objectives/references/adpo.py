"""Independent numpy implementations, from the specification's formulas."""

import math

import numpy as np

VARIANTS = {
    "adpo": [
        {"temperature": 0.7},
        {"_optional": True, "labels": "scores", "score_temperature": 0.6},
        {"_optional": True, "labels": "scores", "entropy": True},
    ],
    "adpo_listwise": [
        {},
        {"target": "scores", "temperature": 0.5, "score_temperature": 0.9},
        {"target": "smoothed_ranks", "bandwidth": 0.8},
        {"entropy": True},
        {"drop_nonpositive": True},
    ],
}


def adpo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    preference=None,
    chosen_score=None,
    rejected_score=None,
    temperature,
    score_temperature,
    labels,
    entropy,
):
    q = np.ones_like(chosen_log_ratio) if preference is None else preference
    if labels == "scores":
        q = 1 / (1 + np.exp((rejected_score - chosen_score) / score_temperature))
    z = (chosen_log_ratio - rejected_log_ratio) / temperature
    losses = q * np.logaddexp(0, -z) + (1 - q) * np.logaddexp(0, z)
    if entropy and not (labels == "preference" and preference is None):
        losses = losses + q * np.log(q) + (1 - q) * np.log(1 - q)
    return losses


def adpo_listwise(
    *,
    list_log_ratio,
    list_scores,
    list_mask=None,
    temperature,
    score_temperature,
    target,
    bandwidth,
    entropy,
    drop_nonpositive,
):
    losses, weights = [], []
    for n in range(len(list_log_ratio)):
        there = np.ones(list_scores.shape[1], bool) if list_mask is None else list_mask[n] > 0
        u, r = list_log_ratio[n][there] / temperature, list_scores[n][there]
        hat = r
        if target != "scores":
            hat = (r - r.mean()) / (r.std(ddof=1) + 1e-8)
        if target == "smoothed_ranks":
            hat = np.array(
                [np.mean([0.5 * (1 + math.erf((a - b) / bandwidth / math.sqrt(2))) for b in hat]) for a in hat]
            )
        q = np.exp(hat / score_temperature)
        q = q / q.sum()
        log_p = u - u.max() - np.log(np.exp(u - u.max()).sum())
        losses.append(-(q * log_p).sum() + (q * np.log(q)).sum() * entropy)
        weights.append(float((r > 0).any()))
    return {"losses": np.array(losses), "weights": np.array(weights)} if drop_nonpositive else np.array(losses)
