"""What the diffusion, step and reward objectives become in limits of each other: statement -> the two sides."""

import torch

from diffpref.objectives import (
    align_anything,
    alignprop,
    bdhs,
    capo,
    crpo,
    curated_retraining,
    d3po,
    dcpo,
    ddim_inpo,
    ddpo,
    dense_dpo,
    diffusion_dpo_hinge,
    diffusion_dpo_ipo,
    diffusion_dro,
    diffusion_kto,
    diffusion_kto_mismatched,
    diffusion_nft,
    dpo,
    draft,
    dspo,
    flow_dpo,
    flow_grpo,
    inversion_dpo,
    ipo,
    lipo_lambda,
    lpo,
    mapo,
    mixgrpo,
    opa_dpo,
    rank_dpo,
    refl,
    rso,
    seppo,
    smpo_diffusion,
    spo,
    tango2,
    vdpo,
    video_dpo_omniscore,
    video_dpo_omniscore_script,
)

PAIR = "chosen_log_ratio rejected_log_ratio"
SOFT = f"{PAIR} preference"
SEGMENTS = "chosen_segment_log_ratio rejected_segment_log_ratio"
STEPS = "policy_logps behaviour_logps advantage"
DISCOUNT = 0.532455814  # |1 / ln 2 - 1 / ln 3|


def two(x):
    """A list of two: the chosen with score 1, the rejected with score 0."""
    pair = x(PAIR)
    ones = torch.ones_like(x.one)
    ratios = torch.stack([pair["chosen_log_ratio"], pair["rejected_log_ratio"]], dim=1)
    return {"list_log_ratio": ratios, "list_scores": torch.stack([ones, 0 * ones], dim=1)}


def small(x):
    """Log-ratios well inside of a trust region of 0.1."""
    return {name: 0.01 * tensor for name, tensor in x(PAIR).items()}


def columns_of_one(x):
    """Predictions of videos one latent column wide, and the log-ratios that their errors give."""
    names = [f"{role}_{side}_prediction" for role in ("policy", "reference") for side in ("chosen", "rejected")]
    full = {name: x[name][..., :1] for name in (*names, "chosen_target", "rejected_target")}

    def error(role, side):
        return (full[f"{role}_{side}_prediction"] - full[f"{side}_target"]).square().flatten(1).mean(1)

    ratios = {f"{side}_log_ratio": -0.5 * (error("policy", side) - error("reference", side)) for side in SIDES}
    return full, ratios


SIDES = ("chosen", "rejected")


def first_frame(x, reduction):
    """DenseDPO with one frame, which the first video wins, against DPO."""
    frames = {name: tensor[:, :1] for name, tensor in x(SEGMENTS).items()}
    ones = torch.ones_like(x.one)[:, None]
    pair = {name.replace("segment_", ""): tensor[:, 0] for name, tensor in frames.items()}
    return dense_dpo(**frames, segment_label=ones, reduction=reduction, beta=0.7), dpo(**pair, beta=0.7)


def same_answers(x):
    """OPA-DPO with one good answer, unit weights and only the pairs of answers, against DPO of the sums, twice."""
    gold, rejected = x["gold_token_log_ratio"], x["rejected_token_log_ratio"]
    ones, others = torch.ones_like(gold), torch.ones_like(rejected)
    loss = opa_dpo(
        gold_token_log_ratio=gold,
        gold_token_mask=ones,
        chosen_token_log_ratio=gold,
        chosen_token_mask=ones,
        chosen_token_score=ones,
        rejected_token_log_ratio=rejected,
        rejected_token_mask=others,
        rejected_token_score=others,
        mismatched_token_log_ratio=ones,
        corrupted_token_log_ratio=ones,
        corrupted_token_score=ones,
        copo_coef=0.0,
        anchor_coef=0.0,
    )
    return loss, 2 * dpo(chosen_log_ratio=gold.sum(1), rejected_log_ratio=rejected.sum(1), beta=0.1)


def velocities(x, advantage):
    """Inputs of DiffusionNFT on the policy's own samples at beta 1, and its adaptive regression on the target."""
    v, target, t = x["policy_prediction"], x["target"], torch.full_like(x.one, 0.4)
    loss = diffusion_nft(
        policy_prediction=v,
        behaviour_prediction=x["behaviour_prediction"],
        reference_prediction=v,
        target=target,
        timesteps=t,
        advantage=advantage * x.one,
    )
    error = 0.4 * (target - v).flatten(1)
    return loss, 5.0 * error.square().mean(1) / error.abs().mean(1)


TABLE = {
    **{
        f"{name} is dpo at its beta": lambda x, function=function: (
            function(**x(SOFT), beta=0.7),
            dpo(**x(SOFT), beta=0.7),
        )
        for name, function in {"ddim_inpo": ddim_inpo, "dcpo": dcpo, "tango2": tango2, "flow_dpo": flow_dpo}.items()
    },
    "vdpo without weights is dpo": lambda x: (vdpo(**x(SOFT)), dpo(**x(SOFT))),
    "vdpo multiplies dpo's losses": lambda x: (vdpo(**x(f"{SOFT} weight")), x["weight"] * dpo(**x(SOFT))),
    "flow_dpo's schedule at t is constant beta (1 - t)^2": lambda x: (
        flow_dpo(**x(PAIR), timesteps=0.3 * x.one, beta=2.0, beta_schedule="one_minus_t_sq"),
        flow_dpo(**x(PAIR), beta=2.0 * 0.49),
    ),
    "align_anything is dpo at twice the beta": lambda x: (
        align_anything(**x(SOFT), beta_coeff=0.3),
        dpo(**x(SOFT), beta=0.6),
    ),
    "align_anything's hinge is the diffusers script's": lambda x: (
        align_anything(**x(SOFT), beta_coeff=0.3, loss_type="hinge"),
        diffusion_dpo_hinge(**x(SOFT), beta=0.3),
    ),
    "diffusion_dpo_ipo is four times ipo at twice the tau": lambda x: (
        diffusion_dpo_ipo(**x(SOFT), beta=0.3),
        4 * ipo(**x(SOFT), tau=0.6, length_normalize=False),
    ),
    "diffusion_dpo_hinge is rso's hinge at twice the beta": lambda x: (
        diffusion_dpo_hinge(**x(SOFT), beta=0.3),
        rso(**x(SOFT), beta=0.6),
    ),
    "smpo_diffusion at a weight of 1 is dpo": lambda x: (
        smpo_diffusion(**x(PAIR), beta_scale=x.one, weight_from="beta_scale"),
        dpo(**x(PAIR)),
    ),
    "smpo_diffusion of a tie is ln 2": lambda x: (
        smpo_diffusion(**x(PAIR), chosen_score=x.one, rejected_score=x.one),
        dpo(chosen_log_ratio=x.zero, rejected_log_ratio=x.zero),
    ),
    "smpo_diffusion's scores are the soft label that they imply": lambda x: (
        smpo_diffusion(**x(f"{PAIR} chosen_score rejected_score"), score_range=2.0),
        smpo_diffusion(
            **x(PAIR),
            preference=((x["chosen_score"] - x["rejected_score"]) / 2.0).sigmoid(),
            weight_from="preference",
        ),
    ),
    "smpo_diffusion feels no constant in both scores": lambda x: (
        smpo_diffusion(**x(PAIR), chosen_score=x["chosen_score"] + 3, rejected_score=x["rejected_score"] + 3),
        smpo_diffusion(**x(f"{PAIR} chosen_score rejected_score")),
    ),
    "inversion_dpo is dpo of half the mean disagreements": lambda x: (
        inversion_dpo(**x("chosen_segment_kl rejected_segment_kl"), beta=0.7),
        dpo(**{f"{s}_log_ratio": 0.5 * x[f"{s}_segment_kl"].mean(1) for s in SIDES}, beta=0.7),
    ),
    "inversion_dpo with the other sign is the swapped pair": lambda x: (
        inversion_dpo(**x("chosen_segment_kl rejected_segment_kl"), beta=0.7, sign="reference_trajectory"),
        inversion_dpo(chosen_segment_kl=x["rejected_segment_kl"], rejected_segment_kl=x["chosen_segment_kl"], beta=0.7),
    ),
    "rank_dpo of two with scores 1 and 0 is a constant times dpo": lambda x: (
        rank_dpo(**two(x), beta=0.7),
        DISCOUNT * dpo(**x(PAIR), beta=0.7),
    ),
    "rank_dpo of two does not care where ranks come from": lambda x: (
        rank_dpo(**two(x), rank_source="predicted"),
        rank_dpo(**two(x)),
    ),
    "rank_dpo feels no constant in all log-ratios": lambda x: (
        rank_dpo(list_log_ratio=x["list_log_ratio"] + 2.0, list_scores=x["list_scores"].sigmoid()),
        rank_dpo(list_log_ratio=x["list_log_ratio"], list_scores=x["list_scores"].sigmoid()),
    ),
    "rank_dpo of equal scores is 0": lambda x: (
        rank_dpo(list_log_ratio=x["list_log_ratio"], list_scores=0 * x["list_scores"]),
        x.zero,
    ),
    "rank_dpo's mean is its sum over six pairs": lambda x: (
        6 * rank_dpo(list_log_ratio=x["list_log_ratio"], list_scores=x["list_scores"].sigmoid(), pair_norm="mean"),
        rank_dpo(list_log_ratio=x["list_log_ratio"], list_scores=x["list_scores"].sigmoid()),
    ),
    "rank_dpo of shares feels no unit of the scores": lambda x: (
        rank_dpo(list_log_ratio=x["list_log_ratio"], list_scores=x["list_scores"].exp(), labels="win_shares"),
        rank_dpo(**x("list_log_ratio list_scores"), labels="win_shares"),
    ),
    "rank_dpo with predicted ranks is lipo_lambda": lambda x: (
        rank_dpo(
            list_log_ratio=x["list_log_ratio"],
            list_scores=x["list_scores"].sigmoid(),
            rank_source="predicted",
            beta=0.7,
        ),
        lipo_lambda(list_log_ratio=x["list_log_ratio"], list_scores=x["list_scores"].sigmoid(), beta=0.7),
    ),
    "seppo that never flips is dpo": lambda x: (seppo(**x(PAIR), aaf="none").losses, dpo(**x(PAIR))),
    "seppo is dpo where the policy beats the reference": lambda x: (
        seppo(chosen_log_ratio=x["chosen_log_ratio"].abs(), rejected_log_ratio=x["rejected_log_ratio"]).losses,
        dpo(chosen_log_ratio=x["chosen_log_ratio"].abs(), rejected_log_ratio=x["rejected_log_ratio"]),
    ),
    "seppo makes a winner of the sample where the reference is better": lambda x: (
        seppo(chosen_log_ratio=-x["chosen_log_ratio"].abs(), rejected_log_ratio=x["rejected_log_ratio"]).losses,
        dpo(chosen_log_ratio=-x["chosen_log_ratio"].abs(), rejected_log_ratio=-x["rejected_log_ratio"]),
    ),
    "seppo's indicator drops the sample where the reference is better": lambda x: (
        seppo(
            chosen_log_ratio=-x["chosen_log_ratio"].abs(),
            rejected_log_ratio=x["rejected_log_ratio"],
            aaf="indicator",
        ).losses,
        dpo(chosen_log_ratio=-x["chosen_log_ratio"].abs(), rejected_log_ratio=x.zero),
    ),
    "dense_dpo of whole videos, mean inside, is flow_dpo": lambda x: (
        dense_dpo(
            **x(SEGMENTS),
            segment_label=torch.ones_like(x["chosen_segment_log_ratio"]),
            reduction="mean_inside",
            beta=0.7,
        ),
        flow_dpo(**{f"{s}_log_ratio": x[f"{s}_segment_log_ratio"].mean(1) for s in SIDES}, beta=0.7),
    ),
    **{
        f"dense_dpo of one frame is dpo, {reduction}": lambda x, reduction=reduction: first_frame(x, reduction)
        for reduction in ("frame_mean", "per_video_mean", "sum_inside", "mean_inside")
    },
    "dense_dpo feels no exchange of the videos with their labels": lambda x: (
        dense_dpo(**x(SEGMENTS), segment_label=x["segment_label"]),
        dense_dpo(
            chosen_segment_log_ratio=x["rejected_segment_log_ratio"],
            rejected_segment_log_ratio=x["chosen_segment_log_ratio"],
            segment_label=-x["segment_label"],
        ),
    ),
    "video_dpo_omniscore without its weights is dpo": lambda x: (
        video_dpo_omniscore(**x(f"{SOFT} weight"), alpha=0.0),
        dpo(**x(SOFT)),
    ),
    "video_dpo_omniscore at policy = reference is the weight times ln 2": lambda x: (
        video_dpo_omniscore(chosen_log_ratio=x.zero, rejected_log_ratio=x.zero, weight=x["weight"]),
        x["weight"] * dpo(chosen_log_ratio=x.zero, rejected_log_ratio=x.zero),
    ),
    "video_dpo_omniscore_script of one column is video_dpo_omniscore": lambda x: (
        video_dpo_omniscore_script(**columns_of_one(x)[0], beta=0.7),
        video_dpo_omniscore(**columns_of_one(x)[1], beta=0.7),
    ),
    "crpo without the winner's error is dpo": lambda x: (
        crpo(**x(f"{PAIR} policy_chosen_logps"), sft_weight=2.0) + 2.0 * x["policy_chosen_logps"],
        dpo(**x(PAIR)),
    ),
    "diffusion_dro at policy = reference is its margin": lambda x: (
        diffusion_dro(gold_log_ratio=x.zero, online_log_ratio=x.zero, margin=0.3),
        0.3 * x.one,
    ),
    "diffusion_dro is linear in the expert as the margin grows": lambda x: (
        diffusion_dro(gold_log_ratio=x["gold_log_ratio"], online_log_ratio=x.zero, margin=50.0) - 50.0,
        -2 * x["gold_log_ratio"],
    ),
    "curated_retraining of equal rewards imitates all alike": lambda x: (
        curated_retraining(policy_list_logps=x["policy_list_logps"], list_scores=0 * x["policy_list_logps"]),
        -x["policy_list_logps"].mean(1),
    ),
    "curated_retraining imitates the best as the temperature falls": lambda x: (
        curated_retraining(**x("policy_list_logps list_scores"), temperature=1e-6),
        -x["policy_list_logps"].gather(1, x["list_scores"].argmax(1, keepdim=True))[:, 0],
    ),
    "bdhs of the first pair alone is dpo": lambda x: (bdhs(**x(f"{PAIR} online_log_ratio"), gamma=1.0), dpo(**x(PAIR))),
    "bdhs of one rejected answer twice is dpo": lambda x: (
        bdhs(**x(PAIR), online_log_ratio=x["rejected_log_ratio"]),
        dpo(**x(PAIR)),
    ),
    "opa_dpo with one good answer and no pictures is dpo twice": same_answers,
    "mapo without its gap is twice the negative log-likelihood": lambda x: (
        mapo(**x("policy_chosen_logps policy_rejected_logps"), beta=0.0),
        -2 * x["policy_chosen_logps"],
    ),
    "mapo of equal samples adds beta ln 2": lambda x: (
        mapo(policy_chosen_logps=x["policy_chosen_logps"], policy_rejected_logps=x["policy_chosen_logps"], beta=0.3),
        -2 * x["policy_chosen_logps"] + 0.3 * dpo(chosen_log_ratio=x.zero, rejected_log_ratio=x.zero),
    ),
    "dspo at beta 0 is the winner's denoising error": lambda x: (
        dspo(**x(f"{PAIR} policy_chosen_prediction reference_chosen_prediction chosen_target"), beta=0.0),
        (x["policy_chosen_prediction"] - x["chosen_target"]).square().flatten(1).mean(1),
    ),
    "dspo at policy = reference is the winner's denoising error": lambda x: (
        dspo(
            chosen_log_ratio=x.zero,
            rejected_log_ratio=x.zero,
            policy_chosen_prediction=x["policy_chosen_prediction"],
            reference_chosen_prediction=x["policy_chosen_prediction"],
            chosen_target=x["chosen_target"],
            beta=0.5,
        ),
        (x["policy_chosen_prediction"] - x["chosen_target"]).square().flatten(1).mean(1),
    ),
    "capo with rewards one apart is beta^2 times ipo": lambda x: (
        capo(**x(PAIR), chosen_score=x.one, rejected_score=x.zero, beta=0.6),
        0.36 * ipo(**x(PAIR), tau=0.3, length_normalize=False),
    ),
    "diffusion_kto's reference points agree at 0": lambda x: (
        diffusion_kto(log_ratio=-x["log_ratio"].abs(), label=x["label"]),
        diffusion_kto_mismatched(log_ratio=-x["log_ratio"].abs(), mismatched_log_ratio=x.zero, label=x["label"]),
    ),
    "diffusion_kto with the sigmoid is 1/2 at the reference point": lambda x: (
        diffusion_kto(log_ratio=x.one, label=x["label"]),
        0.5 * x.one,
    ),
    "diffusion_nft regresses on a sample of the largest advantage": lambda x: velocities(x, 5.0),
    "diffusion_nft takes larger advantages for the largest": lambda x: velocities(x, 50.0),
    "ddpo is minus the advantage where the policy sampled": lambda x: (
        ddpo(policy_logps=x["policy_logps"], behaviour_logps=x["policy_logps"], advantage=x["advantage"]),
        -x["advantage"],
    ),
    "flow_grpo without the divergence is ddpo": lambda x: (flow_grpo(**x(f"{STEPS} kl"), beta=0.0), ddpo(**x(STEPS))),
    "mixgrpo as published is ddpo": lambda x: (mixgrpo(**x(STEPS)), ddpo(**x(STEPS))),
    "spo inside of its region is dpo": lambda x: (spo(**small(x), beta=2.0), dpo(**small(x), beta=2.0)),
    "d3po inside of its region is dpo": lambda x: (d3po(**small(x), beta=2.0), dpo(**small(x), beta=2.0)),
    "lpo is spo at its beta": lambda x: (lpo(**x(SOFT), beta=10.0), spo(**x(SOFT))),
    "d3po of a tie is ln 2": lambda x: (
        d3po(**x(PAIR), preference=0.5 * x.one),
        dpo(chosen_log_ratio=x.zero, rejected_log_ratio=x.zero),
    ),
    "refl is alignprop below its target": lambda x: (
        refl(policy_score=x["policy_score"], grad_scale=0.01, target=50.0),
        alignprop(policy_score=x["policy_score"], loss_coeff=0.01, target=50.0),
    ),
    "alignprop is draft up to a constant": lambda x: (
        alignprop(policy_score=x["policy_score"], loss_coeff=1.0, target=0.0),
        draft(policy_score=x["policy_score"]),
    ),
}
