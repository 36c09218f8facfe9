"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "diffusion_nft": [
        {},
        {"beta": 0.3, "kl_beta": 0.2, "adv_clip_max": 0.8},
        {"beta": 0.5, "adv_mode": "positive_only"},
        {"beta": 2.0, "adv_mode": "negative_only"},
        {"adv_mode": "one_only"},
        {"adv_mode": "binary"},
    ]
}


def diffusion_nft(
    *,
    policy_prediction,
    behaviour_prediction,
    reference_prediction,
    target,
    timesteps,
    advantage,
    beta,
    kl_beta,
    adv_clip_max,
    adv_mode,
    stopped=None,
):
    losses = []
    c = adv_clip_max
    for i in range(len(target)):
        t, v, v_old = timesteps[i], policy_prediction[i], behaviour_prediction[i]
        x0 = np.zeros_like(v)  # any clean sample will do: what counts is noise - x0
        x_t = (1 - t) * x0 + t * (target[i] + x0)
        a = min(max(advantage[i], -c), c)
        a = {
            "all": a,
            "positive_only": max(a, 0),
            "negative_only": min(a, 0),
            "one_only": float(a > 0),
            "binary": np.sign(a),
        }[adv_mode]
        r = min(max(a / (2 * c) + 0.5, 0), 1)
        parts = []
        held = v if stopped is None else stopped["policy_prediction"][i]
        for sign in (1, -1):
            v_held, v_moving = v_old + sign * beta * (held - v_old), v_old + sign * beta * (v - v_old)
            w = max(np.abs(x_t - t * v_held - x0).mean(), 1e-5)
            parts.append(((x_t - t * v_moving - x0) ** 2 / w).mean())
        kl = ((v - reference_prediction[i]) ** 2).mean()
        losses.append(c * (r * parts[0] / beta + (1 - r) * parts[1] / beta) + kl_beta * kl)
    return np.array(losses)
