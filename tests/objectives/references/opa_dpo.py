"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "opa_dpo": [
        {},
        {"beta": 0.3, "copo_coef": 0.5, "anchor_coef": 0.7, "anchor_value": 0.2},
        {"beta": 0.3, "copo_coef": 0.5, "anchor_coef": 0.7, "anchor_value": 0.2, "opa_mode": "official_script"},
    ]
}


def opa_dpo(
    *,
    gold_token_log_ratio,
    gold_token_mask,
    chosen_token_log_ratio,
    chosen_token_mask,
    chosen_token_score,
    rejected_token_log_ratio,
    rejected_token_mask,
    rejected_token_score,
    mismatched_token_log_ratio,
    corrupted_token_log_ratio,
    corrupted_token_score,
    beta,
    copo_coef,
    anchor_coef,
    anchor_value,
    opa_mode,
):
    losses = []
    for i in range(len(gold_token_log_ratio)):
        length = max(gold_token_mask.shape[1], chosen_token_mask.shape[1], rejected_token_mask.shape[1])
        names = "s o a ca_a co_o s_gap a_gap".split()
        values = {name: np.zeros(length) for name in names}
        for k in range(gold_token_mask.shape[1]):
            if gold_token_mask[i, k]:
                values["s"][k] = gold_token_log_ratio[i, k]
                values["s_gap"][k] = gold_token_log_ratio[i, k] - mismatched_token_log_ratio[i, k]
        for k in range(chosen_token_mask.shape[1]):
            if chosen_token_mask[i, k]:
                d_a = chosen_token_log_ratio[i, k]
                values["a"][k], values["ca_a"][k] = d_a, chosen_token_score[i, k] * d_a
                values["a_gap"][k] = corrupted_token_score[i, k] * (d_a - corrupted_token_log_ratio[i, k])
        for k in range(rejected_token_mask.shape[1]):
            if rejected_token_mask[i, k]:
                d_o = rejected_token_log_ratio[i, k]
                values["o"][k], values["co_o"][k] = d_o, rejected_token_score[i, k] * d_o
        if opa_mode == "sequence":
            values = {name: value.sum() for name, value in values.items()}
        v = values
        pair1 = np.logaddexp(0, -beta * (v["s"] - v["o"])).mean()
        pair2 = np.logaddexp(0, -beta * (v["ca_a"] - v["co_o"])).mean()
        pair3 = np.logaddexp(0, -beta * v["s_gap"]).mean()
        pair4 = np.logaddexp(0, -beta * v["a_gap"]).mean()
        up_s = np.logaddexp(0, -(beta * v["s"] - anchor_value))
        up_a = np.logaddexp(0, -(beta * v["a"] - anchor_value))
        down_a = np.logaddexp(0, -(-beta * v["a"] + anchor_value))
        anchor = up_s + up_a if opa_mode == "sequence" else (up_s + down_a + up_s + down_a).mean()
        losses.append(pair1 + pair2 + copo_coef * (pair3 + pair4) + anchor_coef * anchor)
    return np.array(losses)
