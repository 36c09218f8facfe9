"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "dpo_plackett_luce": [{}, {"beta": 0.7, "top": 2}],
    "list_softmax_ce": [{}, {"beta": 0.7, "temperature": 0.4}, {"beta": 0.7, "target": "share"}, {"target": "best"}],
    "pro": [{"length_normalize": False}, {"beta": 0.4, "sft_weight": 0.2, "_optional": True}],
}


def dpo_plackett_luce(*, list_log_ratio, ranks, list_mask=None, beta, top):
    losses = []
    for b in range(len(list_log_ratio)):
        kept = [k for k in range(list_log_ratio.shape[1]) if list_mask is None or list_mask[b, k] == 1]
        s = [beta * list_log_ratio[b, k] for k in sorted(kept, key=lambda k: ranks[b, k])]
        picks = len(s) - 1 if top is None else min(top, len(s) - 1)
        losses.append(-sum(s[k] - np.log(np.sum(np.exp(s[k:]))) for k in range(picks)))
    return np.array(losses)


def list_softmax_ce(*, list_log_ratio, list_scores, list_mask=None, beta, target, temperature):
    losses = []
    for b in range(len(list_log_ratio)):
        kept = [k for k in range(list_log_ratio.shape[1]) if list_mask is None or list_mask[b, k] == 1]
        s, psi = beta * list_log_ratio[b, kept], list_scores[b, kept]
        if target == "softmax":
            q = np.exp(psi / temperature) / np.exp(psi / temperature).sum()
        else:
            q = psi / psi.sum() if target == "share" else (psi == psi.max()).astype(float)
        losses.append(-np.sum(q * (s - np.log(np.exp(s).sum()))))
    return np.array(losses)


def pro(*, policy_list_logps, list_scores, list_length=None, list_mask=None, beta, sft_weight, length_normalize):
    losses = []
    for b in range(len(policy_list_logps)):
        kept = [k for k in range(policy_list_logps.shape[1]) if list_mask is None or list_mask[b, k] == 1]
        kept.sort(key=lambda k: -list_scores[b, k])
        total, reward = beta * policy_list_logps[b, kept], list_scores[b, kept]
        p = total / list_length[b, kept] if length_normalize else total
        loss = 0.0
        for k in range(len(kept) - 1):
            gaps = [reward[k] - reward[j] for j in range(k + 1, len(kept))]
            own = p[k] * max(gaps)
            rest = sum(np.exp(p[k + 1 + n] * gap) for n, gap in enumerate(gaps))
            loss += np.log(1e-10 + np.exp(own) + rest) - own
        losses.append(loss + sft_weight * (len(kept) - 1) ** 2 * -total[0])
    return np.array(losses)
