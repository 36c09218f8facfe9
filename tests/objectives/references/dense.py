"""Independent numpy implementations, from the specification's formulas."""

import numpy as np

VARIANTS = {
    "dense_dpo": [
        {"min_non_tie": 0.0},
        {"beta": 0.8, "min_non_tie": 0.4},
        {"reduction": "per_video_mean"},
        {"reduction": "sum_inside"},
        {"reduction": "mean_inside"},
    ]
}


def dense_dpo(*, chosen_segment_log_ratio, rejected_segment_log_ratio, segment_label, beta, reduction, min_non_tie):
    losses, weights = [], []
    for h0, h1, labels in zip(chosen_segment_log_ratio, rejected_segment_log_ratio, segment_label, strict=True):
        told = [f for f in range(len(labels)) if labels[f] != 0]
        if len(told) <= min_non_tie * len(labels):
            losses.append(0.0)
            weights.append(0.0)
            continue
        x = [beta * labels[f] * (h0[f] - h1[f]) for f in told]
        if reduction in ("sum_inside", "mean_inside"):
            inside = sum(x) if reduction == "sum_inside" else sum(x) / len(told)
            losses.append(np.logaddexp(0, -inside))
        else:
            losses.append(np.mean([np.logaddexp(0, -value) for value in x]))
        weights.append(float(len(told)) if reduction == "frame_mean" else 1.0)
    return {"losses": np.array(losses), "weights": np.array(weights)}
