"""What one objective of tokens, lists or games becomes in a limit of another: statement -> the two."""

import math

import torch

from diffpref.objectives import (
    dpo,
    gpo,
    lipo_lambda,
    lipo_pairwise,
    sppo,
    sppo_hard,
    sppo_single,
    tdpo1,
    tdpo2,
)

PAIR = "chosen_log_ratio rejected_log_ratio"
KL = f"{PAIR} chosen_kl rejected_kl"


def as_list(x, **scores):
    """The pair as a list of two, the better one first."""
    ratios = torch.stack([x["chosen_log_ratio"], x["rejected_log_ratio"]], dim=1)
    return {"list_log_ratio": ratios, **{name: torch.stack(pair, dim=1) for name, pair in scores.items()}}


TABLE = {
    "tdpo2 without KL is dpo": lambda x: (tdpo2(**x(KL), alpha=0.0), dpo(**x(PAIR))),
    "tdpo1 is tdpo2 with alpha 1 in value": lambda x: (tdpo1(**x(KL)), tdpo2(**x(KL), alpha=1.0)),
    "tdpo1 with equal KLs is dpo": lambda x: (
        tdpo1(**x(PAIR), chosen_kl=x["chosen_kl"], rejected_kl=x["chosen_kl"]),
        dpo(**x(PAIR)),
    ),
    "lipo_lambda of a pair is dpo times a constant": lambda x: (
        lipo_lambda(**as_list(x, list_scores=(x.one, x.zero)), beta=0.3),
        dpo(**x(PAIR), beta=0.3) * (1 / math.log(2) - 1 / math.log(3)),
    ),
    "lipo_pairwise of a pair is dpo": lambda x: (
        lipo_pairwise(**as_list(x, list_scores=(x.one, x.zero)), beta=0.3),
        dpo(**x(PAIR), beta=0.3),
    ),
    "sppo with certain wins is sppo_hard halved": lambda x: (
        sppo(**x(PAIR), chosen_win_rate=x.one, rejected_win_rate=x.zero, beta=0.3),
        sppo_hard(**x(PAIR), beta=0.3) / 2,
    ),
    "sppo without win rates is sppo_hard halved": lambda x: (
        sppo(**x(PAIR), beta=0.3),
        sppo_hard(**x(PAIR), beta=0.3) / 2,
    ),
    "sppo_single is sppo where the win rates are P and 1 - P": lambda x: (
        sppo_single(**x(PAIR), preference=x["chosen_win_rate"], beta=0.3),
        sppo(**x(PAIR), chosen_win_rate=x["chosen_win_rate"], rejected_win_rate=1 - x["chosen_win_rate"], beta=0.3),
    ),
    "gpo with win rates less a half for scores is sppo": lambda x: (
        gpo(
            **x(PAIR),
            chosen_score=x["chosen_win_rate"] - 0.5,
            rejected_score=x["rejected_win_rate"] - 0.5,
            beta=0.3,
        ),
        sppo(**x(f"{PAIR} chosen_win_rate rejected_win_rate"), beta=0.3),
    ),
}
