"""Independent numpy implementations, from the specification's formulas."""

VARIANTS = {"capo": [{}, {"beta": 0.7}]}


def capo(*, chosen_log_ratio, rejected_log_ratio, chosen_score, rejected_score, beta_scale=None, beta):
    w_t = 1.0 if beta_scale is None else beta_scale
    r_w, r_l = w_t * 2 * chosen_log_ratio, w_t * 2 * rejected_log_ratio
    return (chosen_score - rejected_score - beta / 2 * (r_w - r_l)) ** 2
