"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "sparsepo": [{}, {"beta": 0.7}],
    "sparsepo_independent": [{}, {"beta": 0.7}],
    "sparsepo_activation": [{}, {"beta": 0.7}],
    "tgdpo": [{}, {"beta": 0.7, "alpha": 1.5, "nonnegative": True}, {"guide_beta": 0.4}],
}


def sparsepo(
    *,
    chosen_token_log_ratio,
    rejected_token_log_ratio,
    chosen_token_kl,
    rejected_token_kl,
    policy_chosen_token_weight,
    policy_rejected_token_weight,
    chosen_token_mask,
    rejected_token_mask,
    beta,
):
    m_w, m_l = policy_chosen_token_weight * chosen_token_mask, policy_rejected_token_weight * rejected_token_mask
    u = beta * ((m_w * chosen_token_log_ratio).sum(1) - (m_l * rejected_token_log_ratio).sum(1))
    delta = beta * ((m_l * rejected_token_kl).sum(1) - (m_w * chosen_token_kl).sum(1))
    return np.logaddexp(0, -(u - delta))


def sparsepo_independent(
    *,
    chosen_token_log_ratio,
    rejected_token_log_ratio,
    chosen_token_kl,
    rejected_token_kl,
    policy_chosen_token_weight,
    policy_rejected_token_weight,
    policy_chosen_token_kl_weight,
    policy_rejected_token_kl_weight,
    chosen_token_mask,
    rejected_token_mask,
    beta,
):
    m_w, m_l = policy_chosen_token_weight * chosen_token_mask, policy_rejected_token_weight * rejected_token_mask
    u = beta * ((m_w * chosen_token_log_ratio).sum(1) - (m_l * rejected_token_log_ratio).sum(1))
    d_w, d_l = policy_chosen_token_kl_weight * chosen_token_mask, policy_rejected_token_kl_weight * rejected_token_mask
    delta = beta * ((d_l * rejected_token_kl).sum(1) - (d_w * chosen_token_kl).sum(1))
    return np.logaddexp(0, -(u - delta))


def sparsepo_activation(
    *,
    chosen_token_log_ratio,
    rejected_token_log_ratio,
    chosen_token_kl,
    rejected_token_kl,
    reference_chosen_token_weight,
    reference_rejected_token_weight,
    chosen_token_mask,
    rejected_token_mask,
    beta,
):
    m_w, m_l = reference_chosen_token_weight * chosen_token_mask, reference_rejected_token_weight * rejected_token_mask
    u = beta * ((m_w * chosen_token_log_ratio).sum(1) - (m_l * rejected_token_log_ratio).sum(1))
    delta = beta * ((m_l * rejected_token_kl).sum(1) - (m_w * chosen_token_kl).sum(1))
    return np.logaddexp(0, -(u - delta))


def tgdpo(
    *,
    chosen_token_log_ratio,
    rejected_token_log_ratio,
    guide_chosen_token_log_ratio,
    guide_rejected_token_log_ratio,
    chosen_token_mask,
    rejected_token_mask,
    beta,
    alpha,
    guide_beta,
    nonnegative,
):
    b = beta if guide_beta is None else guide_beta
    w_w, w_l = 1 + alpha * b * guide_chosen_token_log_ratio, 1 - alpha * b * guide_rejected_token_log_ratio
    if nonnegative:
        w_w, w_l = np.maximum(w_w, 0), np.maximum(w_l, 0)
    first = (w_w * chosen_token_log_ratio * chosen_token_mask).sum(1)
    second = (w_l * rejected_token_log_ratio * rejected_token_mask).sum(1)
    return np.logaddexp(0, -beta * (first - second))
