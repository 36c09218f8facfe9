"""Objectives: pure functions from likelihoods and labels to losses. They never see a model.

    from diffpref import objectives
    loss = objectives.dpo(chosen_log_ratio=a, rejected_log_ratio=b, beta=0.1)          # (B,)

Each is one decorated function in a file of this package; `registry` finds them, those of other distributions too.
"""

from __future__ import annotations

from diffpref.objectives.adpo import adpo, adpo_listwise
from diffpref.objectives.anchored import apo_down, apo_zero, nca_pair
from diffpref.objectives.asymmetric import flex_dpo, sft_dpo
from diffpref.objectives.base import Objective, ObjectiveSpec, objective, registry
from diffpref.objectives.binary_classifier import bco, bco_pair, bco_pair_running
from diffpref.objectives.calibrated import capo
from diffpref.objectives.compose import Composition, compose, reduce_sums
from diffpref.objectives.conditions import bdhs, vdpo
from diffpref.objectives.curated import curated_retraining
from diffpref.objectives.degree import spo_degree
from diffpref.objectives.demonstrations import bridge_sft
from diffpref.objectives.dense import dense_dpo
from diffpref.objectives.diffusion_kto import diffusion_kto, diffusion_kto_mismatched
from diffpref.objectives.diffusion_nft import diffusion_nft
from diffpref.objectives.diffusion_pairs import dcpo, ddim_inpo, flow_dpo, tango2
from diffpref.objectives.disagreement import inversion_dpo
from diffpref.objectives.discopop import discopop
from diffpref.objectives.dpo import dpo
from diffpref.objectives.dpop import dpop
from diffpref.objectives.dspo import dspo
from diffpref.objectives.dynamic_beta import beta_dpo
from diffpref.objectives.exact import exo, exo_pair
from diffpref.objectives.exploration import selm, vpo, xpo
from diffpref.objectives.f_divergence import f_dpo
from diffpref.objectives.fast_slow import ofs_dpo
from diffpref.objectives.general_preference import gpm
from diffpref.objectives.hinge import rso, rso_hinge, rso_sigmoid_norm, slic_hf, slic_hf_target
from diffpref.objectives.in_context_ranking import irpo_ranking
from diffpref.objectives.inverse_rl import diffusion_dro
from diffpref.objectives.ipo import ipo
from diffpref.objectives.joint import dove, mapl, mapl_intra
from diffpref.objectives.kto import apo_zero_unpaired, kto, kto_pair
from diffpref.objectives.label_noise import cdpo, rdpo
from diffpref.objectives.lambda_rank import rank_dpo
from diffpref.objectives.length import ln_dpo, r_dpo
from diffpref.objectives.lipo import lipo_lambda, lipo_pairwise, lipo_pointwise
from diffpref.objectives.mapo import mapo
from diffpref.objectives.metrics import reward_metrics
from diffpref.objectives.multi_objective import modpo
from diffpref.objectives.nash import dno, inpo_nash, nash_md, nash_md_per_token
from diffpref.objectives.nll import nll
from diffpref.objectives.odds_ratio import asft, orpo
from diffpref.objectives.online_ipo import ipo_md, online_ipo_1, online_ipo_1_list, online_ipo_2_list
from diffpref.objectives.online_kl import hypo, hypo_clip, online_kl
from diffpref.objectives.opa_dpo import opa_dpo
from diffpref.objectives.optimal_transport import aot, aot_unpaired
from diffpref.objectives.oreo import oreo
from diffpref.objectives.penalties import chosen_floor, kl_penalty, log_ratio_penalty
from diffpref.objectives.picture_rewards import bradley_terry_aspects, hps_ranking, pickscore, uncertain_bradley_terry
from diffpref.objectives.policy_gradient import ddpo, flow_grpo, mixgrpo
from diffpref.objectives.ranked_lists import dpo_plackett_luce, list_softmax_ce, pro
from diffpref.objectives.rare_pairs import video_dpo_omniscore, video_dpo_omniscore_script
from diffpref.objectives.rationales import rationale_dpo, rationale_orpo
from diffpref.objectives.reference_free import alphapo, cpo, simpo
from diffpref.objectives.regret import cpl, cpl_discounted, cpl_kl, cpl_kl_rank, cpl_rank
from diffpref.objectives.regularized import rpo
from diffpref.objectives.reward_gradient import alignprop, draft, refl
from diffpref.objectives.reward_models import bradley_terry, bradley_terry_ties, reward_plackett_luce, reward_regression
from diffpref.objectives.self_labelled import osp_spce, spa, spa_decoupled
from diffpref.objectives.semi_policy import seppo
from diffpref.objectives.shared_length import ld_dpo, sampo, sampo_independent
from diffpref.objectives.smoothed import smpo_diffusion
from diffpref.objectives.spin import spin
from diffpref.objectives.sppo import gpo, sppo, sppo_hard, sppo_single
from diffpref.objectives.step_pairs import d3po, lpo, spo
from diffpref.objectives.tdpo import tdpo1, tdpo2
from diffpref.objectives.token_weights import sparsepo, sparsepo_activation, sparsepo_independent, tgdpo
from diffpref.objectives.trees import mcts_dpo, tpo_tree
from diffpref.objectives.triple import tpo_l, tpo_triple
from diffpref.objectives.unhalved import align_anything, diffusion_dpo_hinge, diffusion_dpo_ipo
from diffpref.objectives.weighted_dpo import madpo, sem_dpo
from diffpref.objectives.weighting import registry as weighting_registry
from diffpref.objectives.winner_regression import crpo
from diffpref.objectives.wpo import wpo

__all__ = [
    "Composition",
    "Objective",
    "ObjectiveSpec",
    "adpo",
    "adpo_listwise",
    "align_anything",
    "alignprop",
    "alphapo",
    "aot",
    "aot_unpaired",
    "apo_down",
    "apo_zero",
    "apo_zero_unpaired",
    "asft",
    "bco",
    "bco_pair",
    "bco_pair_running",
    "bdhs",
    "beta_dpo",
    "bradley_terry",
    "bradley_terry_aspects",
    "bradley_terry_ties",
    "bridge_sft",
    "capo",
    "cdpo",
    "chosen_floor",
    "compose",
    "cpl",
    "cpl_discounted",
    "cpl_kl",
    "cpl_kl_rank",
    "cpl_rank",
    "cpo",
    "crpo",
    "curated_retraining",
    "d3po",
    "dcpo",
    "ddim_inpo",
    "ddpo",
    "dense_dpo",
    "diffusion_dpo_hinge",
    "diffusion_dpo_ipo",
    "diffusion_dro",
    "diffusion_kto",
    "diffusion_kto_mismatched",
    "diffusion_nft",
    "discopop",
    "dno",
    "dove",
    "dpo",
    "dpo_plackett_luce",
    "dpop",
    "draft",
    "dspo",
    "exo",
    "exo_pair",
    "f_dpo",
    "flex_dpo",
    "flow_dpo",
    "flow_grpo",
    "gpm",
    "gpo",
    "hps_ranking",
    "hypo",
    "hypo_clip",
    "inpo_nash",
    "inversion_dpo",
    "ipo",
    "ipo_md",
    "irpo_ranking",
    "kl_penalty",
    "kto",
    "kto_pair",
    "ld_dpo",
    "lipo_lambda",
    "lipo_pairwise",
    "lipo_pointwise",
    "list_softmax_ce",
    "ln_dpo",
    "log_ratio_penalty",
    "lpo",
    "madpo",
    "mapl",
    "mapl_intra",
    "mapo",
    "mcts_dpo",
    "mixgrpo",
    "modpo",
    "nash_md",
    "nash_md_per_token",
    "nca_pair",
    "nll",
    "objective",
    "ofs_dpo",
    "online_ipo_1",
    "online_ipo_1_list",
    "online_ipo_2_list",
    "online_kl",
    "opa_dpo",
    "oreo",
    "orpo",
    "osp_spce",
    "pickscore",
    "pro",
    "r_dpo",
    "rank_dpo",
    "rationale_dpo",
    "rationale_orpo",
    "rdpo",
    "reduce_sums",
    "refl",
    "registry",
    "reward_metrics",
    "reward_plackett_luce",
    "reward_regression",
    "rpo",
    "rso",
    "rso_hinge",
    "rso_sigmoid_norm",
    "sampo",
    "sampo_independent",
    "selm",
    "sem_dpo",
    "seppo",
    "sft_dpo",
    "simpo",
    "slic_hf",
    "slic_hf_target",
    "smpo_diffusion",
    "spa",
    "spa_decoupled",
    "sparsepo",
    "sparsepo_activation",
    "sparsepo_independent",
    "spin",
    "spo",
    "spo_degree",
    "sppo",
    "sppo_hard",
    "sppo_single",
    "tango2",
    "tdpo1",
    "tdpo2",
    "tgdpo",
    "tpo_l",
    "tpo_tree",
    "tpo_triple",
    "uncertain_bradley_terry",
    "vdpo",
    "video_dpo_omniscore",
    "video_dpo_omniscore_script",
    "vpo",
    "weighting_registry",
    "wpo",
    "xpo",
]
