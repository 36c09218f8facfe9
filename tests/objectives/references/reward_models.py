"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "bradley_terry": [
        {},
        {"temperature": 0.6, "margin_scale": 0.8, "_optional": True},
        {"centering": 0.3, "floor": 0.01},
        {"margin": 0.57, "margin_scale": 0.4, "_optional": True},
    ],
    "bradley_terry_ties": [{}, {"threshold": 1.3}],
    "reward_plackett_luce": [{}, {"top": 2}],
}


def bradley_terry(
    *,
    policy_chosen_score,
    policy_rejected_score,
    preference=None,
    chosen_score=None,
    rejected_score=None,
    temperature,
    margin,
    margin_scale,
    centering,
    floor,
):
    m = margin + (margin_scale * (chosen_score - rejected_score) if margin_scale else 0.0)
    d = policy_chosen_score - policy_rejected_score
    p = 1.0 if preference is None else preference
    first = -np.log(1 / (1 + np.exp(-(d - m) / temperature)) + floor)
    second = -np.log(1 / (1 + np.exp(-(-d - m) / temperature)) + floor)
    return p * first + (1 - p) * second + centering * (policy_chosen_score + policy_rejected_score) ** 2


def bradley_terry_ties(*, policy_chosen_score, policy_rejected_score, preference=None, threshold):
    theta = np.exp(threshold)
    losses = []
    for b, (r_w, r_l) in enumerate(zip(policy_chosen_score, policy_rejected_score, strict=True)):
        strength_w, strength_l = np.exp(r_w - max(r_w, r_l)), np.exp(r_l - max(r_w, r_l))
        win = strength_w / (strength_w + theta * strength_l)
        loss = strength_l / (strength_l + theta * strength_w)
        tie = (theta**2 - 1) * strength_w * strength_l
        tie /= (strength_w + theta * strength_l) * (strength_l + theta * strength_w)
        p = 1.0 if preference is None else preference[b]
        won, lost = max(2 * p - 1, 0), max(1 - 2 * p, 0)
        losses.append(-won * np.log(win) - lost * np.log(loss) - (1 - won - lost) * np.log(tie))
    return np.array(losses)


def reward_regression(*, policy_score, score):
    return (policy_score - score) ** 2


def reward_plackett_luce(*, policy_list_score, ranks, list_mask=None, top):
    losses = []
    for b in range(len(ranks)):
        kept = [k for k in range(ranks.shape[1]) if list_mask is None or list_mask[b, k] == 1]
        r = [policy_list_score[b, k] for k in sorted(kept, key=lambda k: ranks[b, k])]
        picks = len(r) - 1 if top is None else min(top, len(r) - 1)
        losses.append(-sum(r[k] - np.log(np.sum(np.exp(r[k:]))) for k in range(picks)))
    return np.array(losses)
