"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "cpo": [
        {"nll": "seq_sum", "beta": 0.7, "nll_weight": 0.2, "_optional": False},
        {"_optional": True},
        {"_optional": True, "nll": "token_mean_seq", "label_smoothing": 0.2},
        {"_optional": True, "nll": "token_mean_seq", "link": "hinge", "beta": 0.6},
        {"_optional": True, "nll": "token_mean_seq", "link": "ipo", "beta": 0.6, "length_normalize": True},
    ],
    "simpo": [
        {"length_normalize": False, "beta": 0.8, "gamma_beta_ratio": 0.4, "_optional": False},
        {"_optional": True},
        {"_optional": True, "label_smoothing": 0.2},
        {"_optional": True, "link": "hinge", "beta": 1.5},
    ],
    "alphapo": [
        {"length_normalize": False, "beta": 0.8, "gamma": 0.3, "_optional": False},
        {"_optional": True},
        {"_optional": True, "alpha": -0.5},
        {"_optional": True, "alpha": 0.0},
    ],
}


def cpo(
    *,
    policy_chosen_logps,
    policy_rejected_logps,
    preference=None,
    chosen_length=None,
    rejected_length=None,
    beta,
    label_smoothing,
    nll_weight,
    nll,
    link,
    length_normalize,
):
    p = 1.0 if preference is None else preference
    e = label_smoothing
    n_w, n_l = (chosen_length, rejected_length) if length_normalize else (1.0, 1.0)
    d = policy_chosen_logps / n_w - policy_rejected_logps / n_l
    both = []
    for gap in (d, -d):
        sigmoid = (1 - e) * np.logaddexp(0, -beta * gap) + e * np.logaddexp(0, beta * gap)
        hinge = np.maximum(0, 1 - beta * gap)
        both.append({"sigmoid": sigmoid, "hinge": hinge, "ipo": (gap - 0.5 / beta) ** 2}[link])
    imitation = -p * policy_chosen_logps
    if nll == "token_mean_seq":
        imitation = imitation / chosen_length
    elif nll == "token_mean_batch":
        imitation = np.full_like(imitation, imitation.sum() / chosen_length.sum())
    return p * both[0] + (1 - p) * both[1] + nll_weight * imitation


def simpo(
    *,
    policy_chosen_logps,
    policy_rejected_logps,
    preference=None,
    chosen_length=None,
    rejected_length=None,
    beta,
    gamma_beta_ratio,
    label_smoothing,
    link,
    length_normalize,
):
    p = 1.0 if preference is None else preference
    e = label_smoothing
    n_w, n_l = (chosen_length, rejected_length) if length_normalize else (1.0, 1.0)
    d = policy_chosen_logps / n_w - policy_rejected_logps / n_l
    both = []
    for gap in (d, -d):
        z = beta * gap - beta * gamma_beta_ratio
        if link == "hinge":
            both.append(np.maximum(0, 1 - z))
        else:
            both.append((1 - e) * np.logaddexp(0, -z) + e * np.logaddexp(0, z))
    return p * both[0] + (1 - p) * both[1]


def alphapo(
    *,
    policy_chosen_logps,
    policy_rejected_logps,
    preference=None,
    chosen_length=None,
    rejected_length=None,
    beta,
    gamma,
    alpha,
    length_normalize,
):
    p = 1.0 if preference is None else preference
    n_w, n_l = (chosen_length, rejected_length) if length_normalize else (1.0, 1.0)
    r_w, r_l = policy_chosen_logps / n_w, policy_rejected_logps / n_l
    if alpha != 0:
        r_w, r_l = (1 - np.exp(-alpha * r_w)) / alpha, (1 - np.exp(-alpha * r_l)) / alpha
    d = beta * (r_w - r_l)
    return p * np.logaddexp(0, gamma - d) + (1 - p) * np.logaddexp(0, gamma + d)
