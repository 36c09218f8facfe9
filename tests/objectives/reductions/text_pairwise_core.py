"""Identities of the core pairwise and pointwise losses: statement -> the two sides, given tensors by their names."""

import math

import torch

from diffpref import objectives
from diffpref.objectives import (
    alphapo,
    aot,
    aot_unpaired,
    apo_down,
    apo_zero,
    apo_zero_unpaired,
    asft,
    bco,
    bco_pair,
    bco_pair_running,
    cdpo,
    cpo,
    discopop,
    dpo,
    dpop,
    exo,
    exo_pair,
    f_dpo,
    kto,
    kto_pair,
    ld_dpo,
    ln_dpo,
    nca_pair,
    nll,
    orpo,
    r_dpo,
    rdpo,
    rpo,
    rso,
    rso_hinge,
    rso_sigmoid_norm,
    sampo,
    sampo_independent,
    simpo,
    slic_hf,
    slic_hf_target,
    sppo_hard,
    wpo,
)

RATIOS = "chosen_log_ratio rejected_log_ratio"
SOFT = f"{RATIOS} preference"
LOGPS = "policy_chosen_logps policy_rejected_logps"
ANCHORS = "reference_chosen_logps reference_rejected_logps"
TOKENS = "chosen_token_log_ratio chosen_token_mask rejected_token_log_ratio rejected_token_mask"
LENGTHS = "chosen_length rejected_length"


def margin(x, beta=1.0):
    return beta * (x["chosen_log_ratio"] - x["rejected_log_ratio"])


def swapped(x):
    return {"chosen_log_ratio": x["rejected_log_ratio"], "rejected_log_ratio": x["chosen_log_ratio"]}


def uniform(x):
    """Log-ratios against a reference that finds everything equally likely."""
    return {"chosen_log_ratio": x["policy_chosen_logps"], "rejected_log_ratio": x["policy_rejected_logps"]}


def reduced(terms):
    return (terms.weights * terms.losses).sum() / terms.weights.sum()


def halves(terms):
    """The losses of the first half of the records plus those of the second."""
    return sum(terms.losses.chunk(2))


def ipo(chosen, rejected):
    return objectives.ipo(chosen_log_ratio=chosen, rejected_log_ratio=rejected, tau=0.5, length_normalize=False)


def singles(tensors):
    """Each record as a batch of its own."""
    return [{key: tensor[i : i + 1] for key, tensor in tensors.items()} for i in range(len(tensors[min(tensors)]))]


def habit(x):
    """Collisions at which the responses are exactly as likely as the policy's own."""
    return {f"policy_{side}_collision": x[f"policy_{side}_logps"] for side in ("chosen", "rejected")}


def sums(tokens):
    """Log-ratios of whole responses."""
    masks = {side: tokens[f"{side}_token_mask"] for side in ("chosen", "rejected")}
    return {f"{side}_log_ratio": (mask * tokens[f"{side}_token_log_ratio"]).sum(1) for side, mask in masks.items()}


def equal(x):
    """Responses of equal lengths: the rejected one is as long as the chosen one."""
    ratios = x["rejected_token_log_ratio"][:, : x["chosen_token_mask"].shape[1]]
    mask = x["chosen_token_mask"]
    return {**x(TOKENS), "rejected_token_log_ratio": ratios, "rejected_token_mask": mask}


def rising(x):
    """Draws that keep the first tokens."""
    masks = {side: x[f"{side}_token_mask"] for side in ("chosen", "rejected")}
    return {f"{side}_token_draw": mask.cumsum(dim=1) for side, mask in masks.items()}


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
        slic_hf_target(**x(LOGPS), policy_gold_logps=x["policy_chosen_logps"]),
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
    "rpo without imitation is dpo": lambda x: (
        rpo(**x(f"{SOFT} policy_chosen_logps"), beta=0.1, nll_weight=0.0, nll="seq_sum"),
        dpo(**x(SOFT)),
    ),
    "rpo is dpo and nll, composed": lambda x: (
        rpo(**x(f"{RATIOS} policy_chosen_logps"), beta=0.1, nll_weight=0.3, nll="seq_sum"),
        dpo(**x(RATIOS)) + 0.3 * nll(**x("policy_chosen_logps"), normalization="seq_sum"),
    ),
    "rpo's mean over the batch's tokens is nll's": lambda x: (
        rpo(**x(f"{RATIOS} policy_chosen_logps chosen_length"), beta=0.1, nll_weight=0.3).mean(),
        dpo(**x(RATIOS)).mean() + 0.3 * reduced(nll(**x("policy_chosen_logps chosen_length"))),
    ),
    "rpo as its paper is vpo on the chosen sample, to a constant of the reference": lambda x: (
        rpo(**x(f"{RATIOS} policy_chosen_logps"), beta=0.2, nll_weight=0.3, nll="paper"),
        dpo(**x(RATIOS), beta=0.2)
        - 0.3 * 0.2 * x["chosen_log_ratio"]
        - 0.3 * 0.2 * (x["policy_chosen_logps"] - x["chosen_log_ratio"]),
    ),
    "cpo without imitation is dpo with a uniform reference": lambda x: (
        cpo(**x(f"{LOGPS} preference"), nll_weight=0.0, nll="seq_sum"),
        dpo(**uniform(x), preference=x["preference"]),
    ),
    "cpo's hinge is rso_hinge": lambda x: (
        cpo(**x(f"{LOGPS} preference"), beta=0.4, nll_weight=0.0, nll="seq_sum", link="hinge"),
        rso_hinge(**x(f"{LOGPS} preference"), beta=0.4),
    ),
    "simpo without margin is cpo of means": lambda x: (
        simpo(**x(f"{LOGPS} {LENGTHS} preference"), gamma_beta_ratio=0.0),
        cpo(**x(f"{LOGPS} {LENGTHS} preference"), beta=2.0, nll_weight=0.0, length_normalize=True),
    ),
    "simpo without margin, of equal lengths, is cpo with beta by the length": lambda x: (
        simpo(**x(LOGPS), chosen_length=8 * x.one, rejected_length=8 * x.one, gamma_beta_ratio=0.0),
        cpo(**x(LOGPS), beta=0.25, nll_weight=0.0, nll="seq_sum"),
    ),
    "simpo does not see a repetition of every token": lambda x: (
        simpo(**{key: 2 * tensor for key, tensor in x(f"{LOGPS} {LENGTHS}").items()}),
        simpo(**x(f"{LOGPS} {LENGTHS}")),
    ),
    "alphapo without bend is simpo": lambda x: (
        alphapo(**x(f"{LOGPS} {LENGTHS} preference"), alpha=0.0, gamma=0.5),
        simpo(**x(f"{LOGPS} {LENGTHS} preference"), gamma_beta_ratio=0.25),
    ),
    "alphapo with a vanishing bend is simpo": lambda x: (
        alphapo(**x(f"{LOGPS} {LENGTHS}"), alpha=1e-10, gamma=0.5),
        simpo(**x(f"{LOGPS} {LENGTHS}"), gamma_beta_ratio=0.25),
    ),
    "orpo without odds is nll": lambda x: (
        orpo(**x(f"{LOGPS} {LENGTHS}"), odds_weight=0.0).mean(),
        reduced(nll(**x("policy_chosen_logps chosen_length"))),
    ),
    "orpo's odds do not see a repetition of every token": lambda x: (
        orpo(**{key: 2 * tensor for key, tensor in x(f"{LOGPS} {LENGTHS}").items()}, nll_weight=0.0),
        orpo(**x(f"{LOGPS} {LENGTHS}"), nll_weight=0.0),
    ),
    "orpo of equal samples is nll and its share of ln 2": lambda x: (
        orpo(
            policy_chosen_logps=x["policy_chosen_logps"],
            policy_rejected_logps=x["policy_chosen_logps"],
            nll="seq_sum",
            length_normalize=False,
        ),
        nll(**x("policy_chosen_logps"), normalization="seq_sum") + 0.1 * torch.log(2 * x.one),
    ),
    "asft is a louder nll and unlikelihood": lambda x: (
        asft(**x(LOGPS), align_weight=0.3, length_normalize=False),
        -1.3 * x["policy_chosen_logps"] - 0.3 * torch.log1p(-x["policy_rejected_logps"].exp()),
    ),
    "asft does not compare: a sum of what each sample says alone": lambda x: (
        asft(**x(LOGPS), length_normalize=False),
        asft(policy_chosen_logps=x["policy_chosen_logps"], policy_rejected_logps=-50 * x.one, length_normalize=False)
        + asft(policy_chosen_logps=x.zero, policy_rejected_logps=x["policy_rejected_logps"], length_normalize=False),
    ),
    "kto without a gain elsewhere is apo_zero_unpaired": lambda x: (
        kto(**x("log_ratio label"), mismatched_log_ratio=-x.one, undesirable_weight=1.33),
        apo_zero_unpaired(**x("log_ratio label"), undesirable_weight=1.33),
    ),
    "kto compares with the mean gain elsewhere": lambda x: (
        kto(**x("log_ratio label"), mismatched_log_ratio=x["mismatched_log_ratio"].abs()),
        apo_zero_unpaired(log_ratio=x["log_ratio"] - x["mismatched_log_ratio"].abs().mean(), label=x["label"]),
    ),
    "apo_zero of a pair is apo_zero_unpaired of its two samples": lambda x: (
        apo_zero(**x(RATIOS)),
        apo_zero_unpaired(log_ratio=x["chosen_log_ratio"], label=x.one)
        + apo_zero_unpaired(log_ratio=x["rejected_log_ratio"], label=x.zero),
    ),
    "kto_pair without gains is half of apo_zero": lambda x: (
        kto_pair(chosen_log_ratio=-x["chosen_log_ratio"].abs(), rejected_log_ratio=-x["rejected_log_ratio"].abs()),
        apo_zero(chosen_log_ratio=-x["chosen_log_ratio"].abs(), rejected_log_ratio=-x["rejected_log_ratio"].abs()) / 2,
    ),
    "apo_down of a chosen sample that stays is apo_zero": lambda x: (
        apo_down(chosen_log_ratio=x.zero, rejected_log_ratio=x["rejected_log_ratio"]),
        apo_zero(chosen_log_ratio=x.zero, rejected_log_ratio=x["rejected_log_ratio"]),
    ),
    "bco_pair is two logistic regressions": lambda x: (
        bco_pair(**x(RATIOS), beta=0.3, shift=0.2),
        dpo(chosen_log_ratio=x["chosen_log_ratio"], rejected_log_ratio=0.2 / 0.3 * x.one, beta=0.3)
        + dpo(chosen_log_ratio=0.2 / 0.3 * x.one, rejected_log_ratio=x["rejected_log_ratio"], beta=0.3),
    ),
    "bco_pair_running is bco_pair about the mean reward": lambda x: (
        bco_pair_running(**x(SOFT), beta=0.3),
        bco_pair(**x(SOFT), beta=0.3, shift=0.15 * sum(x(RATIOS).values()).mean().item()),
    ),
    "bco of the samples of pairs is bco_pair_running": lambda x: (
        halves(bco(log_ratio=torch.cat([*x(RATIOS).values()]), label=torch.cat([x.one, x.zero]), beta=0.3)),
        bco_pair_running(**x(RATIOS), beta=0.3),
    ),
    "bco_pair does not see a shift of all rewards": lambda x: (
        bco_pair(**{key: tensor + 5 for key, tensor in x(RATIOS).items()}, beta=0.1, shift=0.5),
        bco_pair(**x(RATIOS), beta=0.1),
    ),
    "nca_pair lies between bco_pair and its own chosen half": lambda x: (
        nca_pair(**x(RATIOS), beta=0.3),
        bco_pair(**x(RATIOS), beta=0.3)
        + nca_pair(chosen_log_ratio=x.zero, rejected_log_ratio=x["chosen_log_ratio"], beta=0.3)
        - nca_pair(chosen_log_ratio=x.zero, rejected_log_ratio=x["rejected_log_ratio"], beta=0.3),
    ),
    "sppo_hard pulls each log-ratio as ipo pulls a difference": lambda x: (
        sppo_hard(**x(RATIOS), beta=0.5),
        ipo(x["chosen_log_ratio"], x.zero) + ipo(x.zero, x["rejected_log_ratio"]),
    ),
    "f_dpo with the reverse KL is dpo": lambda x: (f_dpo(**x(SOFT), divergence="reverse_kl"), dpo(**x(SOFT))),
    "f_dpo of alpha 1 is the forward KL": lambda x: (
        f_dpo(**x(SOFT), divergence="alpha", alpha=1.0),
        f_dpo(**x(SOFT), divergence="forward_kl"),
    ),
    "f_dpo as alpha vanishes is dpo": lambda x: (f_dpo(**x(SOFT), divergence="alpha", alpha=1e-11), dpo(**x(SOFT))),
    "exo of two is exo_pair": lambda x: (
        exo(
            list_log_ratio=torch.stack([*x(RATIOS).values()], dim=1),
            list_scores=torch.stack([math.log(9) * x.one, x.zero], dim=1),
        ),
        exo_pair(**x(RATIOS), label_smoothing=0.1),
    ),
    "exo does not see a shift of the scores": lambda x: (
        exo(**x("list_log_ratio list_scores list_mask")),
        exo(**x("list_log_ratio list_mask"), list_scores=x["list_scores"] + 3),
    ),
    "discopop of pairs ordered wrongly by far is dpo": lambda x: (
        discopop(chosen_log_ratio=x["chosen_log_ratio"] - 100, rejected_log_ratio=x.zero, beta=0.5),
        dpo(chosen_log_ratio=x["chosen_log_ratio"] - 100, rejected_log_ratio=x.zero, beta=0.5),
    ),
    "aot of single pairs is dpo": lambda x: (
        torch.cat([aot(**one, beta=0.1) for one in singles(x(f"{LOGPS} {ANCHORS}"))]),
        dpo(
            chosen_log_ratio=x["policy_chosen_logps"] - x["reference_chosen_logps"],
            rejected_log_ratio=x["policy_rejected_logps"] - x["reference_rejected_logps"],
        ),
    ),
    "aot_unpaired of single pairs is dpo": lambda x: (
        torch.cat([aot_unpaired(**one, beta=0.1) for one in singles(x(RATIOS))]),
        dpo(**x(RATIOS)),
    ),
    "aot does not see who is rejected where": lambda x: (
        aot_unpaired(chosen_log_ratio=x["chosen_log_ratio"], rejected_log_ratio=x["rejected_log_ratio"].flip(0)),
        aot_unpaired(**x(RATIOS)),
    ),
    "wpo of the policy's own samples is dpo": lambda x: (
        wpo(**x(f"{SOFT} {LOGPS} {LENGTHS}"), **habit(x), label_smoothing=0.2),
        dpo(**x(SOFT), beta=0.01, label_smoothing=0.2),
    ),
    "ld_dpo with its tail is dpo of the sums": lambda x: (
        ld_dpo(**x(f"{TOKENS} preference"), tail_weight=1.0),
        dpo(**sums(x), preference=x["preference"]),
    ),
    "ld_dpo of equal lengths is dpo of the sums": lambda x: (
        ld_dpo(**equal(x), tail_weight=0.0),
        dpo(**sums(equal(x))),
    ),
    "sampo of equal lengths is dpo of the sums": lambda x: (
        sampo(**equal(x), chosen_token_draw=equal(x)["chosen_token_mask"], rejected_token_draw=x["chosen_token_draw"]),
        dpo(**sums(equal(x))),
    ),
    "sampo that draws the first tokens is ld_dpo without tail": lambda x: (
        sampo(
            **x(TOKENS),
            **rising(x),
        ),
        ld_dpo(**x(TOKENS), tail_weight=0.0),
    ),
    "sampo_independent with the same draws is sampo": lambda x: (
        sampo_independent(
            **x("policy_chosen_token_logps policy_rejected_token_logps chosen_token_mask rejected_token_mask"),
            **x("reference_chosen_token_logps reference_rejected_token_logps chosen_token_draw rejected_token_draw"),
            chosen_token_redraw=x["chosen_token_draw"],
            rejected_token_redraw=x["rejected_token_draw"],
        ),
        sampo(
            **x("chosen_token_mask rejected_token_mask chosen_token_draw rejected_token_draw"),
            chosen_token_log_ratio=x["policy_chosen_token_logps"] - x["reference_chosen_token_logps"],
            rejected_token_log_ratio=x["policy_rejected_token_logps"] - x["reference_rejected_token_logps"],
        ),
    ),
}
