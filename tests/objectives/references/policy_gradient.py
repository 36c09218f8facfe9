"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "ddpo": [{}, {"clip_range": 0.2, "adv_clip_max": 0.7}],
    "flow_grpo": [{}, {"clip_range": 0.2, "adv_clip_max": 0.7, "beta": 0.3}],
    "mixgrpo": [{}, {"clip_range": 0.2, "adv_clip_max": 0.7, "kl_coefficient": 0.3}],
}


def ddpo(*, policy_logps, behaviour_logps, advantage, clip_range, adv_clip_max):
    a = np.clip(advantage, -adv_clip_max, adv_clip_max)
    rho = np.exp(policy_logps - behaviour_logps)
    return np.maximum(-a * rho, -a * np.clip(rho, 1 - clip_range, 1 + clip_range))


def flow_grpo(*, policy_logps, behaviour_logps, kl, advantage, clip_range, adv_clip_max, beta):
    a = np.clip(advantage, -adv_clip_max, adv_clip_max)
    rho = np.exp(policy_logps - behaviour_logps)
    return np.maximum(-a * rho, -a * np.clip(rho, 1 - clip_range, 1 + clip_range)) + beta * kl


def mixgrpo(*, policy_logps, behaviour_logps, advantage, clip_range, adv_clip_max, kl_coefficient):
    a = np.clip(advantage, -adv_clip_max, adv_clip_max)
    rho = np.exp(policy_logps - behaviour_logps)
    pg = np.maximum(-a * rho, -a * np.clip(rho, 1 - clip_range, 1 + clip_range))
    return pg + kl_coefficient * 0.5 * (policy_logps - behaviour_logps) ** 2
