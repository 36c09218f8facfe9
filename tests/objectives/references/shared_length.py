"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "ld_dpo": [{}, {"beta": 0.7, "tail_weight": 0.2}],
    "sampo": [{}, {"beta": 0.7}],
    "sampo_independent": [{}, {"beta": 0.7}],
}


def ld_dpo(
    *,
    chosen_token_log_ratio,
    chosen_token_mask,
    rejected_token_log_ratio,
    rejected_token_mask,
    preference=None,
    beta,
    tail_weight,
):
    z = []
    for i in range(len(chosen_token_mask)):
        w = chosen_token_log_ratio[i][chosen_token_mask[i] > 0]
        r = rejected_token_log_ratio[i][rejected_token_mask[i] > 0]
        m = min(len(w), len(r))
        z.append(beta * (w[:m].sum() + tail_weight * w[m:].sum() - r[:m].sum() - tail_weight * r[m:].sum()))
    z = np.array(z)
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)


def sampo(
    *,
    chosen_token_log_ratio,
    chosen_token_mask,
    chosen_token_draw,
    rejected_token_log_ratio,
    rejected_token_mask,
    rejected_token_draw,
    preference=None,
    beta,
):
    z = []
    for i in range(len(chosen_token_mask)):
        here, there = chosen_token_mask[i] > 0, rejected_token_mask[i] > 0
        m = min(here.sum(), there.sum())
        w = chosen_token_log_ratio[i][here][np.argsort(chosen_token_draw[i][here])[:m]]
        r = rejected_token_log_ratio[i][there][np.argsort(rejected_token_draw[i][there])[:m]]
        z.append(beta * (w.sum() - r.sum()))
    z = np.array(z)
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)


def sampo_independent(
    *,
    policy_chosen_token_logps,
    reference_chosen_token_logps,
    chosen_token_mask,
    chosen_token_draw,
    chosen_token_redraw,
    policy_rejected_token_logps,
    reference_rejected_token_logps,
    rejected_token_mask,
    rejected_token_draw,
    rejected_token_redraw,
    preference=None,
    beta,
):
    z = []
    for i in range(len(chosen_token_mask)):
        here, there = chosen_token_mask[i] > 0, rejected_token_mask[i] > 0
        m = min(here.sum(), there.sum())
        lp_w = policy_chosen_token_logps[i][here][np.argsort(chosen_token_draw[i][here])[:m]].sum()
        rp_w = reference_chosen_token_logps[i][here][np.argsort(chosen_token_redraw[i][here])[:m]].sum()
        lp_l = policy_rejected_token_logps[i][there][np.argsort(rejected_token_draw[i][there])[:m]].sum()
        rp_l = reference_rejected_token_logps[i][there][np.argsort(rejected_token_redraw[i][there])[:m]].sum()
        z.append(beta * ((lp_w - lp_l) - (rp_w - rp_l)))
    z = np.array(z)
    p = 1.0 if preference is None else preference
    return p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
