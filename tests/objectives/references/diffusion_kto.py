"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "diffusion_kto": [
        {"beta": 1.0},
        {"halo": "loss_averse", "lambda_d": 1.5, "lambda_u": 0.5},
        {"halo": "risk_seeking_1", "kl_mode": "sigmoid"},
        {"halo": "risk_seeking_2", "beta": 3.0},
        {"halo": "risk_seeking_3"},
    ],
    "diffusion_kto_mismatched": [
        {"beta": 1.0},
        {"halo": "loss_averse", "lambda_d": 1.5, "lambda_u": 0.5},
        {"halo": "risk_seeking_1"},
        {"halo": "risk_seeking_2", "beta": 3.0},
        {"halo": "risk_seeking_3"},
    ],
}


def diffusion_kto(*, log_ratio, label, beta, halo, kl_mode, lambda_d, lambda_u, stopped=None):
    g = log_ratio if stopped is None else stopped["log_ratio"]
    if kl_mode == "none":
        kl = max(0.0, g.mean())
    else:
        positive, negative = g[label == 1], g[label == 0]
        kl = 0.5 * (positive.sum() / (len(positive) + 1e-6) + negative.sum() / (len(negative) + 1e-6))
    losses = []
    for ratio, y in zip(log_ratio, label, strict=True):
        u = beta * (ratio - kl)
        s = 2 * y - 1
        a = s * u
        h = {
            "sigmoid": 1 / (1 + np.exp(-a)),
            "loss_averse": -np.logaddexp(0, -a),
            "risk_seeking_1": s * np.logaddexp(0, u),
            "risk_seeking_2": s * np.exp(u / 100) - 1,
            "risk_seeking_3": np.logaddexp(0, a),
        }[halo]
        losses.append((lambda_d if y == 1 else lambda_u) * (1 - h))
    return np.array(losses)


def diffusion_kto_mismatched(*, log_ratio, mismatched_log_ratio, label, beta, halo, lambda_d, lambda_u, stopped=None):
    kl = (mismatched_log_ratio if stopped is None else stopped["mismatched_log_ratio"]).mean()
    losses = []
    for ratio, y in zip(log_ratio, label, strict=True):
        u = beta * (ratio - kl)
        s = 2 * y - 1
        a = s * u
        h = {
            "sigmoid": 1 / (1 + np.exp(-a)),
            "loss_averse": -np.logaddexp(0, -a),
            "risk_seeking_1": s * np.logaddexp(0, u),
            "risk_seeking_2": s * np.exp(u / 100) - 1,
            "risk_seeking_3": np.logaddexp(0, a),
        }[halo]
        losses.append((lambda_d if y == 1 else lambda_u) * (1 - h))
    return np.array(losses)
