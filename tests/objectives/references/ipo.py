"""Independent numpy implementations, from the specification's formulas."""

VARIANTS = {"ipo": [{"length_normalize": False}, {"tau": 0.4, "_optional": True}]}


def ipo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    preference=None,
    chosen_length=None,
    rejected_length=None,
    tau,
    length_normalize,
):
    n_w, n_l = (chosen_length, rejected_length) if length_normalize else (1.0, 1.0)
    h = chosen_log_ratio / n_w - rejected_log_ratio / n_l
    p = 1.0 if preference is None else preference
    return p * (h - 0.5 / tau) ** 2 + (1 - p) * (h + 0.5 / tau) ** 2
