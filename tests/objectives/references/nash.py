"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "dno": [{}, {"eta": 0.7}],
    "inpo_nash": [{"eta": 0.2, "tau": 0.05}, {"eta": 0.4, "tau": 0.4}, {"eta": 0.3, "tau": 0.0}],
    "nash_md": [{}, {"beta": 0.6, "baseline": 0.0}],
    "nash_md_per_token": [{}, {"beta": 0.6}],
}


def dno(*, chosen_log_ratio, rejected_log_ratio, chosen_win_rate, rejected_win_rate, eta):
    m = eta * (chosen_log_ratio - rejected_log_ratio)
    s = 1 / (1 + np.exp(-(chosen_win_rate - rejected_win_rate)))
    return s * np.log1p(np.exp(-m)) + (1 - s) * np.log1p(np.exp(m))


def inpo_nash(
    *,
    chosen_log_ratio,
    rejected_log_ratio,
    previous_chosen_log_ratio,
    previous_rejected_log_ratio,
    preference=None,
    eta,
    tau,
):
    g_ref = 0.0  # log-ratios are against the reference
    g_pi = chosen_log_ratio - rejected_log_ratio + g_ref
    g_t = previous_chosen_log_ratio - previous_rejected_log_ratio + g_ref
    p = 1.0 if preference is None else preference
    return (g_pi - (tau / eta) * g_ref - ((eta - tau) / eta) * g_t - (p - 0.5) / eta) ** 2


def nash_md(*, policy_logps, log_ratio, win_rate, beta, baseline, stopped):
    return -(win_rate - baseline - beta * stopped["log_ratio"]) * policy_logps


def nash_md_per_token(*, policy_token_logps, token_log_ratio, token_mask, win_rate, beta, stopped):
    losses = []
    for b in range(len(win_rate)):
        total = 0.0
        for t in np.flatnonzero(token_mask[b]):
            total += beta * stopped["token_log_ratio"][b, t] * policy_token_logps[b, t]
            total -= (win_rate[b] - 0.5) * policy_token_logps[b, t]
        losses.append(total)
    return np.array(losses)
