"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "beta_dpo": [
        {"filter_ratio": 0.0},
        {},
        {"beta": 0.7, "sensitivity": 0.1, "filter_ratio": 0.5},
        {"sensitivity": 5.0, "lowest_beta": 0.05},
    ]
}


def beta_dpo(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    draw,
    state,
    preference=None,
    stopped=None,
    beta,
    sensitivity,
    filter_ratio,
    lowest_beta,
):
    p = 1.0 if preference is None else preference
    margin = chosen_log_ratio - rejected_log_ratio
    seen = margin if stopped is None else stopped["chosen_log_ratio"] - stopped["rejected_log_ratio"]
    mu = 0.9 * state["mean"] + 0.1 * seen.mean()
    s = 0.9 * state["std"] + 0.1 * (seen.std(ddof=1) if len(seen) > 1 else 0.0)
    kept = np.ones_like(seen)
    if filter_ratio > 0 and s > 0:
        chance = np.exp(-0.5 * ((seen - mu) / (s + 1e-8)) ** 2)
        # The largest of u^(1 / chance) are a draw without replacement (Efraimidis and Spirakis).
        order = np.argsort(-np.log(draw) / chance)
        kept = np.zeros_like(seen)
        kept[order[: int(len(seen) * (1 - filter_ratio))]] = 1
    used = max(beta * (1 + sensitivity * (seen[kept > 0].mean() - mu)), lowest_beta)
    z = used * margin
    losses = p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
    return {"losses": losses, "weights": kept, "state": {"mean": mu, "std": s}}
