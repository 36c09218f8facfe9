"""Independent numpy implementations, from the specification's formulas."""

VARIANTS = {
    "nll": [
        {"normalization": "seq_sum"},
        {"normalization": "token_mean_seq", "_optional": True},
        {"normalization": "token_mean_batch", "_optional": True},
    ]
}


def nll(*, policy_chosen_logps, preference=None, chosen_length=None, normalization):
    if normalization == "seq_sum" and preference is None:
        return -policy_chosen_logps
    if normalization == "seq_sum":
        return {"losses": -policy_chosen_logps, "weights": preference}
    weights = preference * chosen_length if normalization == "token_mean_batch" else preference
    return {"losses": -policy_chosen_logps / chosen_length, "weights": weights}
