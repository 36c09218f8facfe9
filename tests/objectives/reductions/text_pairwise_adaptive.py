"""Section 6 of the specification for pairs, where it concerns adaptive, self-labelled, joint and regularised ones."""

import torch

from diffpref.objectives import (
    adpo,
    adpo_listwise,
    beta_dpo,
    bridge_sft,
    cdpo,
    chosen_floor,
    cpl,
    cpl_kl,
    cpl_rank,
    cpo,
    dove,
    dpo,
    dpop,
    flex_dpo,
    hypo,
    hypo_clip,
    log_ratio_penalty,
    madpo,
    mapl,
    mapl_intra,
    modpo,
    nll,
    ofs_dpo,
    online_kl,
    orpo,
    osp_spce,
    rationale_dpo,
    rationale_orpo,
    rpo,
    selm,
    sem_dpo,
    sft_dpo,
    simpo,
    spa,
    spa_decoupled,
    tpo_l,
    tpo_triple,
    vpo,
    xpo,
)

PAIR = "chosen_log_ratio rejected_log_ratio"
LOGPS = "policy_chosen_logps policy_rejected_logps"
SCORES = "chosen_score rejected_score"
LENGTHS = "chosen_length rejected_length"


def margin(x):
    return 0.1 * (x["chosen_log_ratio"] - x["rejected_log_ratio"])


def listed(x):
    return torch.stack([x["chosen_log_ratio"], x["rejected_log_ratio"]], dim=1)


TABLE = {
    "madpo with both bounds 1 is dpo": lambda x: (madpo(**x(f"{PAIR} {SCORES}"), c_min=1, c_max=1), dpo(**x(PAIR))),
    "madpo at h = tau is dpo": lambda x: (
        madpo(**x(PAIR), chosen_score=2 * x.one, rejected_score=x.zero, tau=2.0),
        dpo(**x(PAIR)),
    ),
    "beta_dpo without sensitivity and filter is dpo": lambda x: (
        beta_dpo(**x(f"{PAIR} draw"), sensitivity=0, filter_ratio=0),
        dpo(**x(PAIR)),
    ),
    "sem_dpo at alpha 0 is dpo": lambda x: (sem_dpo(**x(f"{PAIR} chosen_similarity"), alpha=0), dpo(**x(PAIR))),
    "sem_dpo with equal meanings is dpo": lambda x: (sem_dpo(**x(PAIR), chosen_similarity=x.one), dpo(**x(PAIR))),
    "flex_dpo with equal betas is dpo": lambda x: (
        flex_dpo(**x(PAIR), beta_chosen=0.1, beta_rejected=0.1),
        dpo(**x(PAIR)),
    ),
    "sft_dpo without imitation is dpo": lambda x: (
        sft_dpo(**x(f"{PAIR} policy_chosen_logps"), nll_weight=0, nll="seq_sum"),
        dpo(**x(PAIR)),
    ),
    "sft_dpo is rpo": lambda x: (
        sft_dpo(**x(f"{PAIR} policy_chosen_logps chosen_length"), beta=0.01, nll_weight=0.005),
        rpo(**x(f"{PAIR} policy_chosen_logps chosen_length")),
    ),
    "modpo with all weight on the labels is dpo": lambda x: (
        modpo(**x(f"{PAIR} chosen_scores rejected_scores"), weight=1),
        dpo(**x(PAIR)),
    ),
    "modpo with equal rewards is dpo at beta / w_0": lambda x: (
        modpo(**x(f"{PAIR} chosen_scores"), rejected_scores=x["chosen_scores"], weight=0.4),
        dpo(**x(PAIR), beta=0.25),
    ),
    "selm at alpha 0 is dpo": lambda x: (selm(**x(f"{PAIR} calibration_log_ratio"), alpha=0, beta=0.1), dpo(**x(PAIR))),
    "selm is vpo": lambda x: (
        selm(**x(f"{PAIR} calibration_log_ratio"), beta=0.1, alpha=0.3),
        vpo(**x(f"{PAIR} calibration_log_ratio"), beta=0.1, alpha=0.3),
    ),
    "vpo at alpha 0 is dpo": lambda x: (vpo(**x(f"{PAIR} calibration_log_ratio"), alpha=0), dpo(**x(PAIR))),
    "xpo at alpha 0 is dpo": lambda x: (xpo(**x(f"{PAIR} policy_calibration_logps"), alpha=0), dpo(**x(PAIR))),
    "pessimistic vpo on chosen responses is rpo's paper form, but a constant": lambda x: (
        vpo(**x(PAIR), calibration_log_ratio=x["chosen_log_ratio"], beta=0.1, alpha=0.3, attitude="pessimistic"),
        rpo(**x(PAIR), policy_chosen_logps=x["chosen_log_ratio"] - 7, beta=0.1, nll_weight=0.3, nll="paper")
        - 0.1 * 0.3 * 7,
    ),
    "hypo without a weight is dpo": lambda x: (
        hypo(**x(f"{PAIR} policy_online_logps reference_online_logps"), beta=0.1, kl_weight=0),
        dpo(**x(PAIR)),
    ),
    "hypo is dpo and online_kl": lambda x: (
        hypo(**x(f"{PAIR} policy_online_logps reference_online_logps"), beta=0.1, kl_weight=0.3),
        dpo(**x(PAIR))
        + 0.3
        * online_kl(
            policy_list_logps=x["policy_online_logps"].unsqueeze(1),
            reference_list_logps=x["reference_online_logps"].unsqueeze(1),
            baseline="none",
        ).losses,
    ),
    "hypo_clip is dpo where the reference is right": lambda x: (
        hypo_clip(**x(PAIR), reference_chosen_logps=x.zero, reference_rejected_logps=x["policy_chosen_logps"]),
        dpo(**x(PAIR)),
    ),
    "hypo_clip is without a reference where it is wrong": lambda x: (
        hypo_clip(**x(PAIR), reference_chosen_logps=x["policy_chosen_logps"], reference_rejected_logps=x.zero),
        dpo(
            chosen_log_ratio=x["chosen_log_ratio"] + x["policy_chosen_logps"],
            rejected_log_ratio=x["rejected_log_ratio"],
        ),
    ),
    "spa without doubt is dpo": lambda x: (spa(**x(PAIR), refine_strength=0), dpo(**x(PAIR))),
    "spa in its warm-up is dpo": lambda x: (spa(**x(PAIR), warmup_updates=1), dpo(**x(PAIR))),
    "spa that doubts all is cdpo": lambda x: (
        spa_decoupled(**x(PAIR), guide_chosen_log_ratio=-x.one, guide_rejected_log_ratio=x.one, refine_strength=0.2),
        cdpo(**x(PAIR), label_smoothing=0.2),
    ),
    "spa_decoupled with the policy as its guide is spa": lambda x: (
        spa_decoupled(**x(PAIR), **{f"guide_{name}": value for name, value in x(PAIR).items()}),
        spa(**x(PAIR)),
    ),
    "osp_spce with a certain judge is dpo": lambda x: (osp_spce(**x(PAIR), preference=x.one), dpo(**x(PAIR))),
    "osp_spce is dpo plus (1 - p) z": lambda x: (
        osp_spce(**x(f"{PAIR} preference")),
        dpo(**x(PAIR)) + (1 - x["preference"]) * margin(x),
    ),
    "cdpo is dpo plus epsilon z": lambda x: (
        cdpo(**x(PAIR), label_smoothing=0.2),
        dpo(**x(PAIR)) + 0.2 * margin(x),
    ),
    "adpo with a certain label is dpo at 1 / temperature": lambda x: (adpo(**x(PAIR), temperature=10), dpo(**x(PAIR))),
    "adpo of a list of two is adpo of a pair": lambda x: (
        adpo_listwise(
            list_log_ratio=listed(x),
            list_scores=torch.stack([x["chosen_score"], x["rejected_score"]], dim=1),
            temperature=0.7,
            score_temperature=0.6,
            target="scores",
        ),
        adpo(**x(f"{PAIR} {SCORES}"), temperature=0.7, score_temperature=0.6, labels="scores"),
    ),
    "adpo of a list of two with a hard target is dpo": lambda x: (
        adpo_listwise(
            list_log_ratio=listed(x),
            list_scores=torch.stack([x.one, x.zero], dim=1),
            temperature=10,
            score_temperature=1e-3,
            target="scores",
        ),
        dpo(**x(PAIR)),
    ),
    "adpo where policy and anchor agree on uniform targets is log K": lambda x: (
        adpo_listwise(list_log_ratio=0 * x["list_log_ratio"], list_scores=0 * x["list_log_ratio"]),
        x.one * torch.tensor(4.0).double().log(),
    ),
    "adpo does not feel a constant of the prompt": lambda x: (
        adpo_listwise(**x("list_log_ratio list_scores")),
        adpo_listwise(list_log_ratio=x["list_log_ratio"] + 3, list_scores=x["list_scores"]),
    ),
    "dove with one prompt is dpo": lambda x: (dove(**x(PAIR)), dpo(**x(PAIR))),
    "mapl_intra is dove with one response": lambda x: (
        mapl_intra(**x("chosen_log_ratio mismatched_log_ratio")),
        dove(chosen_log_ratio=x["chosen_log_ratio"], rejected_log_ratio=x["mismatched_log_ratio"]),
    ),
    "mapl without its terms is dpo": lambda x: (
        mapl(**x(f"{PAIR} mismatched_log_ratio {SCORES}"), intra_weight=0, inter_weight=0),
        dpo(**x(PAIR)),
    ),
    "mapl among equal gaps is dpo and mapl_intra": lambda x: (
        mapl(**x(f"{PAIR} mismatched_log_ratio"), chosen_score=x.one, rejected_score=x.zero, intra_weight=0.5),
        dpo(**x(PAIR)) + 0.5 * mapl_intra(**x("chosen_log_ratio mismatched_log_ratio")),
    ),
    "tpo_triple with the chosen as gold is cpo": lambda x: (
        tpo_triple(**x(LOGPS), policy_gold_logps=x["policy_chosen_logps"], gold_length=x["chosen_length"]),
        cpo(**x(f"{LOGPS} chosen_length"), nll_weight=0.5),
    ),
    "tpo_l without imitation is simpo": lambda x: (
        tpo_l(**x(f"{LOGPS} {LENGTHS} policy_gold_logps"), nll_weight=0, nll="seq_sum", gamma=1.0),
        simpo(**x(f"{LOGPS} {LENGTHS}"), beta=2.0, gamma_beta_ratio=0.5),
    ),
    "tpo_l of sums without a margin is tpo_triple": lambda x: (
        tpo_l(**x(f"{LOGPS} policy_gold_logps gold_length"), gamma=0, length_normalize=False, beta=0.1, nll="seq_sum"),
        tpo_triple(**x(f"{LOGPS} policy_gold_logps"), nll="seq_sum"),
    ),
    "rationale_dpo without rationales is dpo": lambda x: (
        rationale_dpo(**x(f"{PAIR} policy_rationale_logps"), rationale_weight=0, form="nll"),
        dpo(**x(PAIR)),
    ),
    "rationale_dpo as coded leaves ln 2": lambda x: (
        rationale_dpo(**x(f"{PAIR} policy_rationale_logps"), rationale_weight=0),
        dpo(**x(PAIR)) + torch.tensor(2.0).double().log(),
    ),
    "rationale_orpo without rationales is orpo": lambda x: (
        rationale_orpo(**x(f"{LOGPS} {LENGTHS} policy_rationale_logps rationale_length"), rationale_weight=0),
        orpo(**x(f"{LOGPS} {LENGTHS}"), nll="token_mean_seq"),
    ),
    "ofs_dpo without a chase is dpo twice": lambda x: (
        ofs_dpo(**x(f"{PAIR} peer_chosen_log_ratio peer_rejected_log_ratio"), alpha=0),
        dpo(**x(PAIR))
        + dpo(chosen_log_ratio=x["peer_chosen_log_ratio"], rejected_log_ratio=x["peer_rejected_log_ratio"]),
    ),
    "bridge_sft with the total variation is nll": lambda x: (
        bridge_sft(chosen_log_ratio=x["policy_chosen_logps"], divergence="total_variation", length_normalize=False),
        nll(policy_chosen_logps=x["policy_chosen_logps"], normalization="seq_sum"),
    ),
    "cpl without bias is cpo without imitation": lambda x: (
        cpl(**x(LOGPS), bias=1),
        cpo(**x(LOGPS), nll_weight=0, nll="seq_sum"),
    ),
    "cpl_kl without bias is dpo": lambda x: (cpl_kl(**x(PAIR), alpha=0.1, bias=1), dpo(**x(PAIR))),
    "cpl_kl is flex_dpo": lambda x: (
        cpl_kl(**x(PAIR), alpha=0.1, bias=0.5),
        flex_dpo(**x(PAIR), beta_chosen=0.1, beta_rejected=0.05),
    ),
    "cpl_rank of two is cpl": lambda x: (
        cpl_rank(
            policy_list_logps=torch.stack([x["policy_chosen_logps"], x["policy_rejected_logps"]], dim=1),
            list_scores=torch.stack([x.one, x.zero], dim=1),
        ),
        cpl(**x(LOGPS)),
    ),
    "dpop is dpo with a floor inside the logit": lambda x: (
        dpop(**x(PAIR), beta=0.1, dpop_lambda=3),
        dpo(
            chosen_log_ratio=x["chosen_log_ratio"] - 3 * chosen_floor(**x("chosen_log_ratio")),
            rejected_log_ratio=x["rejected_log_ratio"],
        ),
    ),
    "both estimators of the KL agree to second order": lambda x: (
        1e6 * log_ratio_penalty(chosen_log_ratio=1e-5 * x.one, estimator="unbiased"),
        1e6 * log_ratio_penalty(chosen_log_ratio=1e-5 * x.one) * (1 - 1e-5 / 3),
    ),
}
