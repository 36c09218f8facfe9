"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "flex_dpo": [{}, {"beta_chosen": 0.7, "beta_rejected": 0.2}],
    "sft_dpo": [
        {"nll": "seq_sum", "beta": 0.7, "nll_weight": 0.3, "_optional": False},
        {"_optional": True},
        {"_optional": True, "nll": "token_mean_seq", "nll_weight": 0.7},
    ],
}


def flex_dpo(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta_chosen, beta_rejected):
    p = 1.0 if preference is None else preference
    z = beta_chosen * chosen_log_ratio - beta_rejected * rejected_log_ratio
    swapped = beta_chosen * rejected_log_ratio - beta_rejected * chosen_log_ratio
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, -swapped)


def sft_dpo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    policy_chosen_logps,
    preference=None,
    chosen_length=None,
    beta,
    nll_weight,
    nll,
):
    p = 1.0 if preference is None else preference
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    taught = -p * policy_chosen_logps
    if nll == "token_mean_seq":
        taught = taught / chosen_length
    elif nll == "token_mean_batch":
        taught = np.full_like(taught, taught.sum() / chosen_length.sum())
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z) + nll_weight * taught
