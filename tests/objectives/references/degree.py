"""Independent numpy implementations, from the specification's formulas."""

import numpy as np


def spo_degree(*, policy_list_logits, list_label, list_mask=None):
    losses = []
    for n in range(len(list_label)):
        found = []
        for v in range(list_label.shape[1]):
            if list_mask is not None and list_mask[n, v] == 0:
                continue
            logits = policy_list_logits[n, v]
            found.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[int(list_label[n, v])])
        losses.append(np.mean(found))
    return np.array(losses)
