"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "gpm": [
        {"normalize": False, "temperature": 1.0},
        {"margin": 0.3},
        {"temperature": 2.0, "link": "square"},
    ]
}


def gpm(
    *,
    policy_chosen_embedding,
    policy_rejected_embedding,
    preference=None,
    temperature,
    margin,
    normalize,
    link,
):
    losses = []
    for b, (v_w, v_l) in enumerate(zip(policy_chosen_embedding, policy_rejected_embedding, strict=True)):
        if normalize:
            v_w, v_l = v_w / np.sqrt(v_w @ v_w), v_l / np.sqrt(v_l @ v_l)
        rotation = np.kron(np.eye(len(v_w) // 2), [[0.0, -1.0], [1.0, 0.0]])
        score = (rotation @ v_w) @ v_l
        p = 1.0 if preference is None else preference[b]
        if link == "logistic":
            z = (score - margin) / temperature
            losses.append(p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z))
        else:
            losses.append(0.5 * (score / temperature - 10 * (2 * p - 1)) ** 2)
    return np.array(losses)
