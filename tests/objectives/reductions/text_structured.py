"""What one objective of tokens, lists or games becomes in a limit of another: statement -> the two."""

import math

import torch

from diffpref.objectives import (
    bradley_terry,
    bradley_terry_ties,
    cpl,
    cpl_discounted,
    cpl_kl,
    cpl_kl_rank,
    cpl_rank,
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
    mcts_dpo,
    nash_md,
    nash_md_per_token,
    online_ipo_1,
    online_ipo_1_list,
    online_ipo_2_list,
    pro,
    rank_dpo,
    reward_plackett_luce,
    sparsepo,
    sparsepo_activation,
    sparsepo_independent,
    spin,
    sppo,
    sppo_hard,
    sppo_single,
    tdpo1,
    tdpo2,
    tgdpo,
    tpo_tree,
)

PAIR = "chosen_log_ratio rejected_log_ratio"
KL = f"{PAIR} chosen_kl rejected_kl"
BEFORE = "previous_chosen_log_ratio previous_rejected_log_ratio"


TOKENS = "chosen_token_log_ratio rejected_token_log_ratio chosen_token_mask rejected_token_mask"
TOKEN_KL = f"{TOKENS} chosen_token_kl rejected_token_kl"


def sums(x):
    """What is summed over the units of a pair: the log-ratios and the KL of whole samples."""
    return {
        f"{side}_{quantity}": (x[f"{side}_token_{quantity}"] * x[f"{side}_token_mask"]).sum(dim=1)
        for side in ("chosen", "rejected")
        for quantity in ("log_ratio", "kl")
    }


def ratios(x):
    """The log-ratios of whole samples."""
    return {name: value for name, value in sums(x).items() if name.endswith("log_ratio")}


def weights(x, form, value):
    """One weight for every unit of a pair."""
    return {form.format(side): torch.full_like(x[f"{side}_token_mask"], value) for side in ("chosen", "rejected")}


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
    "sparsepo with all weights 1 is tdpo1": lambda x: (
        sparsepo(**x(TOKEN_KL), **weights(x, "policy_{}_token_weight", 1.0)),
        tdpo1(**sums(x)),
    ),
    "sparsepo_activation is sparsepo of the same weights": lambda x: (
        sparsepo_activation(
            **x(TOKEN_KL),
            reference_chosen_token_weight=x["policy_chosen_token_weight"],
            reference_rejected_token_weight=x["policy_rejected_token_weight"],
        ),
        sparsepo(**x(f"{TOKEN_KL} policy_chosen_token_weight policy_rejected_token_weight")),
    ),
    "sparsepo_independent with one mask for both is sparsepo": lambda x: (
        sparsepo_independent(
            **x(f"{TOKEN_KL} policy_chosen_token_weight policy_rejected_token_weight"),
            policy_chosen_token_kl_weight=x["policy_chosen_token_weight"],
            policy_rejected_token_kl_weight=x["policy_rejected_token_weight"],
        ),
        sparsepo(**x(f"{TOKEN_KL} policy_chosen_token_weight policy_rejected_token_weight")),
    ),
    "sparsepo_independent with weights 1 and 0 is dpo": lambda x: (
        sparsepo_independent(
            **x(TOKEN_KL),
            **weights(x, "policy_{}_token_weight", 1.0),
            **weights(x, "policy_{}_token_kl_weight", 0.0),
        ),
        dpo(**ratios(x)),
    ),
    "sparsepo with all weights 0 is log 2": lambda x: (
        sparsepo(**x(TOKEN_KL), **weights(x, "policy_{}_token_weight", 0.0)),
        math.log(2) * x.one,
    ),
    "tgdpo with alpha 0 is dpo": lambda x: (
        tgdpo(**x(f"{TOKENS} guide_chosen_token_log_ratio guide_rejected_token_log_ratio"), alpha=0.0),
        dpo(**ratios(x)),
    ),
    "tgdpo guided by the reference is dpo": lambda x: (
        tgdpo(**x(TOKENS), **weights(x, "guide_{}_token_log_ratio", 0.0)),
        dpo(**ratios(x)),
    ),
    "cpl_kl with bias 1 is dpo": lambda x: (cpl_kl(**x(PAIR), alpha=0.3, bias=1.0), dpo(**x(PAIR), beta=0.3)),
    "cpl_discounted without discount is cpl": lambda x: (
        cpl_discounted(
            **x("policy_chosen_token_logps policy_rejected_token_logps chosen_token_mask rejected_token_mask")
        ),
        cpl(
            policy_chosen_logps=(x["policy_chosen_token_logps"] * x["chosen_token_mask"]).sum(dim=1),
            policy_rejected_logps=(x["policy_rejected_token_logps"] * x["rejected_token_mask"]).sum(dim=1),
        ),
    ),
    "cpl_rank of a pair is cpl": lambda x: (
        cpl_rank(
            policy_list_logps=torch.stack([x["policy_chosen_logps"], x["policy_rejected_logps"]], dim=1),
            list_scores=torch.stack([x.one, x.zero], dim=1),
        ),
        cpl(**x("policy_chosen_logps policy_rejected_logps")),
    ),
    "cpl_kl_rank with bias 1 is lipo_pairwise": lambda x: (
        cpl_kl_rank(**x("list_log_ratio list_scores list_mask"), alpha=0.3, bias=1.0),
        lipo_pairwise(**x("list_log_ratio list_scores list_mask"), beta=0.3),
    ),
    "mcts_dpo where the worse step was never visited is dpo": lambda x: (
        mcts_dpo(**x(PAIR), chosen_visits=3 * x.one, rejected_visits=x.zero),
        dpo(**x(PAIR)),
    ),
    "mcts_dpo where it was visited as often is dpo of a tie": lambda x: (
        mcts_dpo(**x(PAIR), chosen_visits=3 * x.one, rejected_visits=7 * x.one),
        dpo(**x(PAIR), preference=0.5 * x.one),
    ),
    "mcts_dpo with the square link is ipo by length": lambda x: (
        mcts_dpo(
            **x(f"{PAIR} chosen_length rejected_length"),
            chosen_visits=x.one,
            rejected_visits=x.one,
            beta=0.3,
            link="square",
        ),
        ipo(**x(f"{PAIR} chosen_length rejected_length"), tau=0.3),
    ),
    "tpo_tree of paths of one step is lipo_lambda": lambda x: (
        tpo_tree(
            list_segment_log_ratio=x["list_log_ratio"].unsqueeze(2),
            policy_list_segment_embedding=x["policy_list_segment_embedding"][:, :, :1],
            list_segment_mask=torch.ones_like(x["list_log_ratio"]).unsqueeze(2),
            list_scores=x["list_scores"],
        ),
        lipo_lambda(**x("list_log_ratio list_scores"), beta=0.5, labels="minmax"),
    ),
    "spin is dpo against the opponent": lambda x: (spin(**x(PAIR)), dpo(**x(PAIR))),
    "bradley_terry with implicit rewards for scores is dpo": lambda x: (
        bradley_terry(
            policy_chosen_score=0.3 * x["chosen_log_ratio"], policy_rejected_score=0.3 * x["rejected_log_ratio"]
        ),
        dpo(**x(PAIR), beta=0.3),
    ),
    "bradley_terry_ties with certain wins is bradley_terry with a margin": lambda x: (
        bradley_terry_ties(**x("policy_chosen_score policy_rejected_score"), threshold=0.4),
        bradley_terry(
            **x("policy_chosen_score policy_rejected_score"),
            chosen_score=0.4 * x.one,
            rejected_score=x.zero,
            margin_scale=1.0,
        ),
    ),
    "reward_plackett_luce with implicit rewards is dpo_plackett_luce": lambda x: (
        reward_plackett_luce(policy_list_score=0.3 * x["list_log_ratio"], **x("ranks list_mask")),
        dpo_plackett_luce(**x("list_log_ratio ranks list_mask"), beta=0.3),
    ),
}
