"""What one objective of tokens, lists or games becomes in a limit of another: statement -> the two."""

import math

import torch

from diffpref.objectives import (
    dno,
    dpo,
    dpo_plackett_luce,
    gpm,
    gpo,
    inpo_nash,
    ipo,
    ipo_md,
    irpo_ranking,
    lipo_lambda,
    lipo_pairwise,
    list_softmax_ce,
    nash_md,
    nash_md_per_token,
    online_ipo_1,
    online_ipo_1_list,
    online_ipo_2_list,
    pro,
    rank_dpo,
    sppo,
    sppo_hard,
    sppo_single,
    tdpo1,
    tdpo2,
)

PAIR = "chosen_log_ratio rejected_log_ratio"
KL = f"{PAIR} chosen_kl rejected_kl"
BEFORE = "previous_chosen_log_ratio previous_rejected_log_ratio"


def as_list(x, **scores):
    """The pair as a list of two, the better one first."""
    ratios = torch.stack([x["chosen_log_ratio"], x["rejected_log_ratio"]], dim=1)
    return {"list_log_ratio": ratios, **{name: torch.stack(pair, dim=1) for name, pair in scores.items()}}


def matrix(wins):
    """P(i beats j) of a pair, from P(the first beats the second)."""
    half = torch.full_like(wins, 0.5)
    return torch.stack([torch.stack([half, wins], dim=1), torch.stack([1 - wins, half], dim=1)], dim=1)


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
    "dno is dpo with a preference that follows the win rates": lambda x: (
        dno(**x(f"{PAIR} chosen_win_rate rejected_win_rate"), eta=0.3),
        dpo(**x(PAIR), preference=torch.sigmoid(x["chosen_win_rate"] - x["rejected_win_rate"]), beta=0.3),
    ),
    "inpo_nash with tau = eta is ipo on the reference": lambda x: (
        inpo_nash(**x(f"{PAIR} {BEFORE}"), eta=0.3, tau=0.3),
        ipo(**x(PAIR), tau=0.3, length_normalize=False),
    ),
    "inpo_nash with tau = 0 is ipo on the previous iterate": lambda x: (
        inpo_nash(**x(f"{PAIR} {BEFORE}"), eta=0.3, tau=0.0),
        ipo(
            chosen_log_ratio=x["chosen_log_ratio"] - x["previous_chosen_log_ratio"],
            rejected_log_ratio=x["rejected_log_ratio"] - x["previous_rejected_log_ratio"],
            tau=0.3,
            length_normalize=False,
        ),
    ),
    "ipo_md with certain wins is ipo": lambda x: (
        ipo_md(**x(PAIR), preference=x.one, tau=0.3, length_normalize=False),
        ipo(**x(PAIR), tau=0.3, length_normalize=False),
    ),
    "ipo_md with certain losses is ipo of the swapped pair": lambda x: (
        ipo_md(**x(PAIR), preference=x.zero, tau=0.3, length_normalize=False),
        ipo(
            chosen_log_ratio=x["rejected_log_ratio"],
            rejected_log_ratio=x["chosen_log_ratio"],
            tau=0.3,
            length_normalize=False,
        ),
    ),
    "ipo_md is ipo less the variance of the label": lambda x: (
        ipo_md(**x(PAIR), preference=x["chosen_win_rate"], tau=0.3, length_normalize=False),
        ipo(**x(PAIR), preference=x["chosen_win_rate"], tau=0.3, length_normalize=False)
        - x["chosen_win_rate"] * (1 - x["chosen_win_rate"]) / 0.3**2,
    ),
    "ipo_md by length is ipo by length": lambda x: (
        ipo_md(**x(f"{PAIR} chosen_length rejected_length"), tau=0.3),
        ipo(**x(f"{PAIR} chosen_length rejected_length"), tau=0.3),
    ),
    "online_ipo_1 is ipo_md where the win rates differ by P - 1/2": lambda x: (
        online_ipo_1(
            **x(PAIR),
            chosen_win_rate=x["chosen_win_rate"],
            rejected_win_rate=0.5 * x.one,
            beta=0.3,
            length_normalize=False,
        ),
        ipo_md(**x(PAIR), preference=x["chosen_win_rate"], tau=0.3, length_normalize=False),
    ),
    "online_ipo_1_list of a pair is half of online_ipo_1": lambda x: (
        online_ipo_1_list(**as_list(x, list_win_rate=(x["chosen_win_rate"], x["rejected_win_rate"])), beta=0.3),
        online_ipo_1(**x(f"{PAIR} chosen_win_rate rejected_win_rate"), beta=0.3, length_normalize=False) / 2,
    ),
    "online_ipo_2_list of a pair is half of ipo_md": lambda x: (
        online_ipo_2_list(
            **as_list(x, policy_list_logps=(x["policy_chosen_logps"], x["policy_rejected_logps"])),
            list_preference_matrix=matrix(x["chosen_win_rate"]),
            beta=0.3,
        ),
        ipo_md(**x(PAIR), preference=x["chosen_win_rate"], tau=0.3, length_normalize=False) / 2,
    ),
    "nash_md_per_token of one token is nash_md": lambda x: (
        nash_md_per_token(
            policy_token_logps=x["policy_logps"].unsqueeze(1),
            token_log_ratio=x["log_ratio"].unsqueeze(1),
            token_mask=x.one.unsqueeze(1),
            win_rate=x["win_rate"],
        ),
        nash_md(**x("policy_logps log_ratio win_rate")),
    ),
    "gpm of (r, 1) is Bradley-Terry": lambda x: (
        gpm(
            policy_chosen_embedding=torch.stack([x["policy_chosen_score"], x.one], dim=1),
            policy_rejected_embedding=torch.stack([x["policy_rejected_score"], x.one], dim=1),
            temperature=1.0,
            normalize=False,
        ),
        dpo(chosen_log_ratio=x["policy_chosen_score"], rejected_log_ratio=x["policy_rejected_score"], beta=1.0),
    ),
    "dpo_plackett_luce of a pair is dpo": lambda x: (
        dpo_plackett_luce(**as_list(x, ranks=(x.zero, x.one)), beta=0.3),
        dpo(**x(PAIR), beta=0.3),
    ),
    "list_softmax_ce with the best of a pair for a target is dpo": lambda x: (
        list_softmax_ce(**as_list(x, list_scores=(x.one, x.zero)), beta=0.3, target="best"),
        dpo(**x(PAIR), beta=0.3),
    ),
    "list_softmax_ce of a pair is dpo with a soft label": lambda x: (
        list_softmax_ce(**as_list(x, list_scores=(x["chosen_win_rate"], x.zero)), beta=0.3),
        dpo(**x(PAIR), preference=torch.sigmoid(x["chosen_win_rate"]), beta=0.3),
    ),
    "dpo_plackett_luce of the first pick is list_softmax_ce of the best": lambda x: (
        dpo_plackett_luce(**x("list_log_ratio ranks"), beta=0.3, top=1),
        list_softmax_ce(**x("list_log_ratio"), list_scores=3 - x["ranks"], beta=0.3, target="best"),
    ),
    "pro of a pair is logistic in the product of the two differences": lambda x: (
        pro(
            policy_list_logps=torch.stack([x["policy_chosen_logps"], x["policy_rejected_logps"]], dim=1),
            list_scores=torch.stack([1 + x["chosen_win_rate"], x["rejected_win_rate"]], dim=1),
            sft_weight=0.0,
            length_normalize=False,
        ),
        dpo(
            chosen_log_ratio=x["policy_chosen_logps"] * (1 + x["chosen_win_rate"] - x["rejected_win_rate"]),
            rejected_log_ratio=x["policy_rejected_logps"] * (1 + x["chosen_win_rate"] - x["rejected_win_rate"]),
            beta=1.0,
        ),
    ),
    "irpo_ranking of a relevant item before another is half of dpo": lambda x: (
        irpo_ranking(
            **as_list(x, list_scores=(x.one, x.zero), ranks=(x.zero, x.one)), beta=0.3, length_normalize=False
        ),
        dpo(**x(PAIR), beta=0.3) / 2,
    ),
    "lipo_lambda is rank_dpo whose ranks are the model's": lambda x: (
        lipo_lambda(**x("list_log_ratio"), list_scores=torch.sigmoid(x["list_scores"]), beta=0.3),
        rank_dpo(**x("list_log_ratio"), list_scores=torch.sigmoid(x["list_scores"]), beta=0.3, rank_source="predicted"),
    ),
}
