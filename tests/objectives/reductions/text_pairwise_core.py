"""Identities of the core pairwise and pointwise losses: statement -> the two sides, given tensors by their names."""

from diffpref.objectives import cdpo, dpo, dpop, ln_dpo, r_dpo, rdpo, rso, rso_hinge, rso_sigmoid_norm, slic_hf
from diffpref.objectives import slic_hf_target as slic_target

RATIOS = "chosen_log_ratio rejected_log_ratio"
SOFT = f"{RATIOS} preference"
LOGPS = "policy_chosen_logps policy_rejected_logps"
LENGTHS = "chosen_length rejected_length"


def margin(x, beta=1.0):
    return beta * (x["chosen_log_ratio"] - x["rejected_log_ratio"])


def swapped(x):
    return {"chosen_log_ratio": x["rejected_log_ratio"], "rejected_log_ratio": x["chosen_log_ratio"]}


TABLE = {
    "cdpo without smoothing is dpo": lambda x: (cdpo(**x(SOFT), label_smoothing=0.0), dpo(**x(SOFT))),
    "cdpo is dpo plus its share of the margin": lambda x: (
        cdpo(**x(RATIOS), beta=0.7, label_smoothing=0.3),
        dpo(**x(RATIOS), beta=0.7) + 0.3 * margin(x, 0.7),
    ),
    "a soft label is dpo plus the doubt times the margin": lambda x: (
        dpo(**x(SOFT), beta=0.7),
        dpo(**x(RATIOS), beta=0.7) + (1 - x["preference"]) * margin(x, 0.7),
    ),
    "rdpo without flips is dpo": lambda x: (rdpo(**x(SOFT), label_smoothing=0.0), dpo(**x(SOFT))),
    "rdpo is unbiased: its expectation over flips is the clean dpo": lambda x: (
        0.7 * rdpo(**x(RATIOS), label_smoothing=0.3) + 0.3 * rdpo(**swapped(x), label_smoothing=0.3),
        dpo(**x(RATIOS)),
    ),
    "rdpo in closed form": lambda x: (
        rdpo(**x(RATIOS), beta=0.7, label_smoothing=0.3),
        dpo(**x(RATIOS), beta=0.7) - 0.3 / 0.4 * margin(x, 0.7),
    ),
    "rso_sigmoid_norm is dpo": lambda x: (rso_sigmoid_norm(**x(SOFT), beta=0.3), dpo(**x(SOFT), beta=0.3)),
    "rso of log-likelihoods is rso_hinge": lambda x: (
        rso(chosen_log_ratio=x["policy_chosen_logps"], rejected_log_ratio=x["policy_rejected_logps"], beta=0.3),
        rso_hinge(**x(LOGPS), beta=0.3),
    ),
    "slic_hf without its regulariser is a scaled rso_hinge": lambda x: (
        slic_hf(**x(LOGPS), preference=x["preference"], delta=0.5, nll_weight=0.0),
        0.5 * rso_hinge(**x(LOGPS), preference=x["preference"], beta=2.0),
    ),
    "slic_hf with the chosen sample as target": lambda x: (
        slic_target(**x(LOGPS), policy_gold_logps=x["policy_chosen_logps"]),
        slic_hf(**x(LOGPS)),
    ),
    "dpop without penalty is dpo": lambda x: (dpop(**x(SOFT), dpop_lambda=0.0), dpo(**x(SOFT), beta=0.3)),
    "dpop of a chosen sample that became likelier is dpo": lambda x: (
        dpop(chosen_log_ratio=x["chosen_log_ratio"].abs(), rejected_log_ratio=x["rejected_log_ratio"]),
        dpo(chosen_log_ratio=x["chosen_log_ratio"].abs(), rejected_log_ratio=x["rejected_log_ratio"], beta=0.3),
    ),
    "ln_dpo of equal lengths is dpo with beta by the length": lambda x: (
        ln_dpo(**x(SOFT), chosen_length=8 * x.one, rejected_length=8 * x.one, beta=2.0),
        dpo(**x(SOFT), beta=0.25),
    ),
    "ln_dpo does not see a repetition of every token": lambda x: (
        ln_dpo(**{key: 2 * tensor for key, tensor in x(f"{RATIOS} {LENGTHS}").items()}),
        ln_dpo(**x(f"{RATIOS} {LENGTHS}")),
    ),
    "ln_dpo of sums is dpo": lambda x: (ln_dpo(**x(SOFT), length_normalize=False, beta=0.1), dpo(**x(SOFT))),
    "r_dpo without length weight is dpo": lambda x: (
        r_dpo(**x(f"{SOFT} {LENGTHS}"), length_weight=0.0),
        dpo(**x(SOFT)),
    ),
    "r_dpo of equal lengths is dpo": lambda x: (
        r_dpo(**x(SOFT), chosen_length=x.one, rejected_length=x.one, length_weight=0.5),
        dpo(**x(SOFT)),
    ),
}
