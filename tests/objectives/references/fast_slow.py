"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {"ofs_dpo": [{}, {"beta": 0.7, "alpha": 0.6}]}


def ofs_dpo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    peer_chosen_log_ratio,
    peer_rejected_log_ratio,
    preference=None,
    stopped=None,
    beta,
    alpha,
):
    p = 1.0 if preference is None else preference
    fast = beta * (chosen_log_ratio - rejected_log_ratio)
    slow = beta * (peer_chosen_log_ratio - peer_rejected_log_ratio)
    still_fast, still_slow = fast, slow
    if stopped is not None:
        still_fast = beta * (stopped["chosen_log_ratio"] - stopped["rejected_log_ratio"])
        still_slow = beta * (stopped["peer_chosen_log_ratio"] - stopped["peer_rejected_log_ratio"])
    dpo_fast = p * np.logaddexp(0, -fast) + (1 - p) * np.logaddexp(0, fast)
    dpo_slow = p * np.logaddexp(0, -slow) + (1 - p) * np.logaddexp(0, slow)
    flee, chase = np.logaddexp(0, still_slow - fast), np.logaddexp(0, slow - still_fast)
    return dpo_fast + alpha * flee + dpo_slow - alpha * chase
