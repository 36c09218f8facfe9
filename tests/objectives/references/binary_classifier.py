"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "bco": [{"beta": 0.6}, {"beta": 0.6, "min_weight": 0.45, "max_weight": 0.6}, {}],
    "bco_pair": [{"beta": 0.6}, {"beta": 0.6, "shift": 0.3}],
    "bco_pair_running": [{"beta": 0.6}, {}],
}


def bco(*, log_ratio, label, weight=None, beta, min_weight, max_weight, state=None, stopped=None):
    seen = beta * (log_ratio if stopped is None else stopped["log_ratio"])
    total = state["mean"] * state["count"] + seen.sum()
    count = state["count"] + len(seen)
    delta = total / count
    r = beta * log_ratio
    w = 1.0 if weight is None else np.minimum(np.maximum(weight, min_weight), max_weight)
    losses = label * np.logaddexp(0, -(r - delta)) + (1 - label) * w * np.logaddexp(0, r - delta)
    return {"losses": losses, "state": {"mean": delta, "count": count}}


def bco_pair(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta, shift):
    r_w, r_l = beta * chosen_log_ratio - shift, beta * rejected_log_ratio - shift
    p = 1.0 if preference is None else preference
    as_labelled = np.logaddexp(0, -r_w) + np.logaddexp(0, r_l)
    flipped = np.logaddexp(0, -r_l) + np.logaddexp(0, r_w)
    return p * as_labelled + (1 - p) * flipped


def bco_pair_running(*, chosen_log_ratio, rejected_log_ratio, preference=None, beta, state=None, stopped=None):
    seen = {"chosen_log_ratio": chosen_log_ratio, "rejected_log_ratio": rejected_log_ratio}
    seen = seen if stopped is None else stopped
    total = state["mean"] * state["count"] + beta * (seen["chosen_log_ratio"].sum() + seen["rejected_log_ratio"].sum())
    count = state["count"] + 2 * len(chosen_log_ratio)
    delta = total / count
    r_w, r_l = beta * chosen_log_ratio - delta, beta * rejected_log_ratio - delta
    p = 1.0 if preference is None else preference
    losses = p * (np.logaddexp(0, -r_w) + np.logaddexp(0, r_l)) + (1 - p) * (
        np.logaddexp(0, -r_l) + np.logaddexp(0, r_w)
    )
    return {"losses": losses, "state": {"mean": delta, "count": count}}
