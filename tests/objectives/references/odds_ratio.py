"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "orpo": [
        {"length_normalize": False, "nll": "seq_sum", "odds_weight": 0.7, "nll_weight": 0.3, "_optional": False},
        {"_optional": True},
        {"_optional": True, "nll": "token_mean_seq", "odds_weight": 0.7, "nll_weight": 0.3},
    ],
    "asft": [
        {"length_normalize": False, "align_weight": 0.7, "_optional": False},
        {"_optional": True},
    ],
}


def orpo(
    *,
    policy_chosen_logps,
    policy_rejected_logps,
    preference=None,
    chosen_length=None,
    rejected_length=None,
    odds_weight,
    nll_weight,
    nll,
    length_normalize,
):
    p = 1.0 if preference is None else preference
    n_w, n_l = (chosen_length, rejected_length) if length_normalize else (1.0, 1.0)
    prob_w, prob_l = np.exp(policy_chosen_logps / n_w), np.exp(policy_rejected_logps / n_l)
    log_ratio = np.log(prob_w / (1 - prob_w)) - np.log(prob_l / (1 - prob_l))
    odds = p * np.logaddexp(0, -log_ratio) + (1 - p) * np.logaddexp(0, log_ratio)
    imitation = -p * policy_chosen_logps
    if nll == "token_mean_seq":
        imitation = imitation / chosen_length
    elif nll == "token_mean_batch":
        imitation = np.full_like(imitation, imitation.sum() / chosen_length.sum())
    return nll_weight * imitation + odds_weight * odds


def asft(
    *,
    policy_chosen_logps,
    policy_rejected_logps,
    preference=None,
    chosen_length=None,
    rejected_length=None,
    align_weight,
    length_normalize,
):
    p = 1.0 if preference is None else preference
    n_w, n_l = (chosen_length, rejected_length) if length_normalize else (1.0, 1.0)
    a_w, a_l = policy_chosen_logps / n_w, policy_rejected_logps / n_l
    o_w, o_l = np.log(np.exp(a_w) / (1 - np.exp(a_w))), np.log(np.exp(a_l) / (1 - np.exp(a_l)))
    as_labelled = np.logaddexp(0, -o_w) + np.logaddexp(0, o_l)
    flipped = np.logaddexp(0, -o_l) + np.logaddexp(0, o_w)
    return -p * a_w + align_weight * (p * as_labelled + (1 - p) * flipped)
