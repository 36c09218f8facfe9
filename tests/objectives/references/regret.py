"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "cpl": [
        {"_optional": False, "nll": "seq_sum", "nll_weight": 0.0, "alpha": 0.7},
        {"_optional": True, "bias": 0.8, "nll_weight": 0.3},
        {"_optional": True, "nll_weight": 0.3, "nll": "token_mean_batch"},
    ],
    "cpl_kl": [{}, {"alpha": 0.7, "bias": 0.4}],
    "cpl_discounted": [{}, {"alpha": 0.7, "bias": 0.3, "discount": 0.8}],
    "cpl_kl_rank": [{}, {"alpha": 0.7, "bias": 0.3}],
    "cpl_rank": [{}, {"alpha": 0.7, "bias": 0.9}],
}


def cpl(
    *, policy_chosen_logps, policy_rejected_logps, preference=None, chosen_length=None, alpha, bias, nll_weight, nll
):
    y = 1.0 if preference is None else preference
    a_w, a_l = alpha * policy_chosen_logps, alpha * policy_rejected_logps
    taught = -y * policy_chosen_logps
    if nll_weight and nll == "token_mean_seq":
        taught = taught / chosen_length
    elif nll_weight and nll == "token_mean_batch":
        taught = np.full_like(taught, taught.sum() / chosen_length.sum())
    compared = y * np.logaddexp(0, -(a_w - bias * a_l)) + (1 - y) * np.logaddexp(0, -(a_l - bias * a_w))
    return compared + nll_weight * taught


def cpl_kl(*, chosen_log_ratio, rejected_log_ratio, preference=None, alpha, bias):
    y = 1.0 if preference is None else preference
    a_w, a_l = alpha * chosen_log_ratio, alpha * rejected_log_ratio
    return y * np.logaddexp(0, -(a_w - bias * a_l)) + (1 - y) * np.logaddexp(0, -(a_l - bias * a_w))


def cpl_rank(*, policy_list_logps, list_scores, list_mask=None, alpha, bias):
    losses = []
    for n in range(len(list_scores)):
        there = range(list_scores.shape[1]) if list_mask is None else np.flatnonzero(list_mask[n])
        found = [
            np.logaddexp(0, -alpha * (policy_list_logps[n, j] - bias * policy_list_logps[n, i]))
            for i in there
            for j in there
            if list_scores[n, i] < list_scores[n, j]
        ]
        losses.append(np.mean(found) if found else 0.0)
    return np.array(losses)


def cpl_kl_rank(*, list_log_ratio, list_scores, list_mask=None, alpha, bias):
    losses = []
    for b in range(len(list_log_ratio)):
        terms = []
        kept = [k for k in range(list_log_ratio.shape[1]) if list_mask is None or list_mask[b, k] == 1]
        for i in kept:
            for j in kept:
                if list_scores[b, i] < list_scores[b, j]:
                    a_i, a_j = alpha * list_log_ratio[b, i], alpha * list_log_ratio[b, j]
                    terms.append(np.logaddexp(0, -(a_j - bias * a_i)))
        losses.append(np.mean(terms))
    return np.array(losses)


def cpl_discounted(
    *,
    policy_chosen_token_logps,
    policy_rejected_token_logps,
    chosen_token_mask,
    rejected_token_mask,
    preference=None,
    alpha,
    bias,
    discount,
):
    y = 1.0 if preference is None else preference
    steps_w, steps_l = policy_chosen_token_logps * chosen_token_mask, policy_rejected_token_logps * rejected_token_mask
    a_2 = sum(alpha * discount**t * column for t, column in enumerate(steps_w.T))
    a_1 = sum(alpha * discount**t * column for t, column in enumerate(steps_l.T))
    return y * np.log1p(np.exp(-(a_2 - bias * a_1))) + (1 - y) * np.log1p(np.exp(-(a_1 - bias * a_2)))
