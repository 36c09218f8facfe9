"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "oreo": [
        {},
        {"beta": 0.6, "kl_coefficient": 0.3, "importance": True},
        {"beta": 0.6, "form": "single_step", "train": "policy"},
        {"beta": 0.6, "form": "single_step", "train": "value"},
        {"beta": 0.6, "form": "trajectory", "kl_coefficient": 0.0},
    ]
}


def oreo(
    *,
    token_log_ratio,
    policy_token_value,
    token_mask,
    label,
    token_start=None,
    beta,
    kl_coefficient,
    form,
    train,
    importance,
    stopped,
):
    losses = []
    for b in range(len(label)):
        kept = [t for t in range(token_mask.shape[1]) if token_mask[b, t] == 1]
        d, fixed_d = token_log_ratio[b], stopped["token_log_ratio"][b]
        v, fixed_v = policy_token_value[b], stopped["policy_token_value"][b]
        starts = [t for t in kept if token_start is None or token_start[b, t] == 1]
        policy, value = [], []
        for n, t in enumerate(starts):
            last = n == len(starts) - 1
            own = [i for i in kept if i >= t and (last or i < starts[n + 1])]
            later = [] if last else [i for i in kept if i >= starts[n + 1]]
            if form == "telescoped":
                policy.append(beta * (d[own].sum() + fixed_d[later].sum()) + fixed_v[t] - label[b])
                value.append(beta * (fixed_d[own].sum() + fixed_d[later].sum()) + v[t] - label[b])
            elif form == "trajectory":
                policy.append(beta * d[own + later].sum() + fixed_v[t] - label[b])
                value.append(beta * fixed_d[own + later].sum() + v[t] - label[b])
                break
            else:
                reward = label[b] if last else 0.0
                ahead, fixed_ahead = (0.0, 0.0) if last else (v[starts[n + 1]], fixed_v[starts[n + 1]])
                policy.append(fixed_v[t] - reward - fixed_ahead + beta * d[own].sum())
                value.append(v[t] - reward - ahead + beta * fixed_d[own].sum())
        first = np.mean(np.square(policy)) if policy else 0.0
        second = np.mean(np.square(value)) if value else 0.0
        if importance:
            first *= np.exp(min(fixed_d[kept].sum(), 1))
        estimates = [np.exp(-d[t]) + d[t] - 1 if d[t] > -20 else np.exp(20) * (-d[t] - 19) + d[t] - 1 for t in kept]
        pull = kl_coefficient * np.mean(estimates)
        losses.append({"both": first + second + pull, "policy": first + pull, "value": second}[train])
    return np.array(losses)
