"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "tpo_triple": [
        {"nll": "seq_sum", "beta": 0.7, "nll_weight": 0.3, "_optional": False},
        {"_optional": True, "nll": "token_mean_batch"},
        {"_optional": True, "nll": "token_mean_seq"},
        {"_optional": True, "nll": "seq_sum", "link": "hinge"},
        {"_optional": True, "nll": "seq_sum", "link": "ipo", "beta": 0.4},
    ],
    "tpo_l": [
        {"length_normalize": False, "nll": "seq_sum", "beta": 0.7, "gamma": 0.2, "nll_weight": 0.3, "_optional": False},
        {"_optional": True},
        {"_optional": True, "nll": "token_mean_seq"},
    ],
}


def tpo_triple(
    *,
    policy_chosen_logps,
    policy_rejected_logps,
    policy_gold_logps,
    preference=None,
    gold_length=None,
    beta,
    nll_weight,
    nll,
    link,
):
    p = 1.0 if preference is None else preference
    d = policy_chosen_logps - policy_rejected_logps
    if link == "hinge":
        right, wrong = np.maximum(0, 1 - beta * d), np.maximum(0, 1 + beta * d)
    elif link == "ipo":
        right, wrong = (d - 1 / (2 * beta)) ** 2, (d + 1 / (2 * beta)) ** 2
    else:
        right, wrong = np.logaddexp(0, -beta * d), np.logaddexp(0, beta * d)
    taught = -1.0 * policy_gold_logps
    if nll == "token_mean_seq":
        taught = taught / gold_length
    elif nll == "token_mean_batch":
        taught = np.full_like(taught, taught.sum() / gold_length.sum())
    return p * right + (1 - p) * wrong + nll_weight * taught


def tpo_l(
    *,
    policy_chosen_logps,
    policy_rejected_logps,
    policy_gold_logps,
    preference=None,
    chosen_length=None,
    rejected_length=None,
    gold_length=None,
    beta,
    gamma,
    nll_weight,
    nll,
    length_normalize,
):
    p = 1.0 if preference is None else preference
    n_w, n_l = (chosen_length, rejected_length) if length_normalize else (1.0, 1.0)
    d = policy_chosen_logps / n_w - policy_rejected_logps / n_l
    compared = p * np.logaddexp(0, gamma - beta * d) + (1 - p) * np.logaddexp(0, gamma + beta * d)
    taught = -1.0 * policy_gold_logps
    if nll == "token_mean_seq":
        taught = taught / gold_length
    elif nll == "token_mean_batch":
        taught = np.full_like(taught, taught.sum() / gold_length.sum())
    return compared + nll_weight * taught
