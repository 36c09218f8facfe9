"""Independent numpy implementations, from the specification's formulas."""


def nll(*, policy_chosen_logps, preference=None):
    if preference is None:
        return -policy_chosen_logps
    return {"losses": -policy_chosen_logps, "weights": preference}
