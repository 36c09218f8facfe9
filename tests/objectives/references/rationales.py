"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "rationale_dpo": [{"rationale_weight": 0.3}, {"beta": 0.7, "rationale_weight": 0.5, "form": "nll"}],
    "rationale_orpo": [
        {"length_normalize": False, "nll": "seq_sum", "odds_weight": 0.7, "rationale_weight": 0.3, "_optional": False},
        {"_optional": True},
        {"_optional": True, "nll": "token_mean_batch"},
    ],
}


def rationale_dpo(
    *, chosen_log_ratio, rejected_log_ratio, policy_rationale_logps, preference=None, beta, rationale_weight, form
):
    p = 1.0 if preference is None else preference
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    scaled = rationale_weight * policy_rationale_logps
    why = np.logaddexp(0, -scaled) if form == "code" else -scaled
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z) + why


def rationale_orpo(
    *,
    policy_chosen_logps,
    policy_rejected_logps,
    policy_rationale_logps,
    preference=None,
    chosen_length=None,
    rejected_length=None,
    rationale_length=None,
    odds_weight,
    rationale_weight,
    nll,
    length_normalize,
):
    p = 1.0 if preference is None else preference
    n_w, n_l, n_r = (chosen_length, rejected_length, rationale_length) if length_normalize else (1.0, 1.0, 1.0)
    prob_w, prob_l = np.exp(policy_chosen_logps / n_w), np.exp(policy_rejected_logps / n_l)
    log_ratio = np.log(prob_w / (1 - prob_w)) - np.log(prob_l / (1 - prob_l))
    odds = p * np.logaddexp(0, -log_ratio) + (1 - p) * np.logaddexp(0, log_ratio)
    taught = -p * policy_chosen_logps
    if nll == "token_mean_seq":
        taught = taught / chosen_length
    elif nll == "token_mean_batch":
        taught = np.full_like(taught, taught.sum() / chosen_length.sum())
    return taught + odds_weight * odds - rationale_weight * policy_rationale_logps / n_r
