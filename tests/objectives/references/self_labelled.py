"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

DOUBTS = [{"refine_strength": 0.2}, {"beta": 0.7, "quantile": 0.5}, {"warmup_updates": 5}]
VARIANTS = {"osp_spce": [{}, {"beta": 0.7}], "spa": DOUBTS, "spa_decoupled": DOUBTS}


def osp_spce(*, chosen_log_ratio, rejected_log_ratio, preference, beta):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    return np.logaddexp(0, -z) + (1 - preference) * z


def spa(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    state,
    stopped=None,
    beta,
    refine_strength,
    quantile,
    warmup_updates,
):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    still = (
        {"chosen_log_ratio": chosen_log_ratio, "rejected_log_ratio": rejected_log_ratio} if stopped is None else stopped
    )
    judged = beta * (still["chosen_log_ratio"] - still["rejected_log_ratio"])
    keep = (judged > state["threshold"]).astype(float)
    a = 0.0 if state["updates"] < warmup_updates else refine_strength
    losses = (1 - a + a * keep) * np.logaddexp(0, -z) + (a - a * keep) * np.logaddexp(0, z)
    means = np.append(state["means"][1:], judged.mean())
    updates, threshold = state["updates"] + 1, state["threshold"]
    if updates >= 50:
        place = int(50 * quantile)
        threshold = np.sort(means)[place : place + 2].mean()
    return {"losses": losses, "state": {"means": means, "updates": updates, "threshold": threshold}}


def spa_decoupled(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    guide_chosen_log_ratio,
    guide_rejected_log_ratio,
    state,
    beta,
    refine_strength,
    quantile,
    warmup_updates,
):
    z = beta * (chosen_log_ratio - rejected_log_ratio)
    judged = beta * (guide_chosen_log_ratio - guide_rejected_log_ratio)
    keep = (judged > state["threshold"]).astype(float)
    a = 0.0 if state["updates"] < warmup_updates else refine_strength
    losses = (1 - a + a * keep) * np.logaddexp(0, -z) + (a - a * keep) * np.logaddexp(0, z)
    means = np.append(state["means"][1:], judged.mean())
    updates, threshold = state["updates"] + 1, state["threshold"]
    if updates >= 50:
        place = int(50 * quantile)
        threshold = np.sort(means)[place : place + 2].mean()
    return {"losses": losses, "state": {"means": means, "updates": updates, "threshold": threshold}}
