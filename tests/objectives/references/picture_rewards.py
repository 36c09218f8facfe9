"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "hps_ranking": [{}, {"margin": 0.3}, {"legacy": True}],
    "uncertain_bradley_terry": [{}, {"num_nodes": 7}],
    "bradley_terry_aspects": [{}, {"threshold": 0.4, "margin": 0.57}, {"threshold": 0.0}, {"divide": "all"}],
}


def pickscore(*, policy_chosen_score, policy_rejected_score, preference=None):
    losses = []
    for b, (r_w, r_l) in enumerate(zip(policy_chosen_score, policy_rejected_score, strict=True)):
        label = np.array([1.0, 0.0] if preference is None else [preference[b], 1 - preference[b]])
        top = max(r_w, r_l)
        log_q = np.array([r_w, r_l]) - top - np.log(np.exp(r_w - top) + np.exp(r_l - top))
        losses.append(sum(p * (np.log(p) - q) for p, q in zip(label, log_q, strict=True) if p > 0))
    return np.array(losses)


def hps_ranking(*, policy_list_score, ranks, list_mask=None, margin, legacy):
    losses = []
    for b in range(len(ranks)):
        score, rank = list(policy_list_score[b]), list(ranks[b])
        absent = [list_mask is not None and list_mask[b, k] == 0 for k in range(len(rank))]
        terms = []
        for i in range(len(rank)):
            for j in range(i + 1):
                s_i, s_j = (-1.0 if absent[k] else score[k] for k in (i, j))
                r_i, r_j = (9.0 if absent[k] else rank[k] for k in (i, j))
                if legacy or not (absent[i] or absent[j] or r_i == r_j):
                    terms.append(max(0.0, margin - (s_i - s_j) * (r_j - r_i)))
        losses.append(np.mean(terms) if terms else 0.0)
    return np.array(losses)


def uncertain_bradley_terry(
    *,
    policy_chosen_score,
    policy_rejected_score,
    policy_chosen_log_std,
    policy_rejected_log_std,
    preference=None,
    num_nodes,
):
    x, w = np.polynomial.hermite.hermgauss(num_nodes)  # the physicists' polynomials, of weight exp(-x^2)
    deviation = np.hypot(*(np.exp(np.clip(r, -10, 10)) for r in (policy_chosen_log_std, policy_rejected_log_std)))
    z = (policy_chosen_score - policy_rejected_score)[:, None] + np.sqrt(2) * deviation[:, None] * x
    won, lost = (np.logaddexp(0, sign * z) @ w / np.sqrt(np.pi) for sign in (-1, 1))
    p = 1.0 if preference is None else preference
    return p * won + (1 - p) * lost


def bradley_terry_aspects(*, policy_chosen_scores, policy_rejected_scores, preferences, threshold, margin, divide):
    theta = np.exp(threshold)
    losses, weights = [], []
    for b in range(len(preferences)):
        terms = []
        for a, p in enumerate(preferences[b]):
            if p < 0:
                continue
            d = policy_chosen_scores[b, a] - policy_rejected_scores[b, a]
            win, loss = (np.logaddexp(0, np.log(theta) - (sign * d - margin)) for sign in (1, -1))
            if threshold == 0:
                terms.append(p * win + (1 - p) * loss)
                continue
            tie = np.logaddexp(d, np.log(theta)) + np.logaddexp(np.log(theta) + d, 0) - d - np.log(theta**2 - 1)
            won, lost = max(2 * p - 1, 0), max(1 - 2 * p, 0)
            terms.append(won * win + lost * loss + (1 - won - lost) * tie)
        count = len(preferences[b]) if divide == "all" else max(len(terms), 1)
        losses.append(sum(terms) / count)
        weights.append(float(len(terms)))
    return {"losses": np.array(losses)} | ({} if divide == "all" else {"weights": np.array(weights)})
