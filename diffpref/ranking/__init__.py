"""From scores to pairs, ranks, win rates and accepted samples: pure functions that see numbers only."""

from __future__ import annotations

from diffpref.ranking.advantages import aggregated_advantages, buffered_advantages, group_advantages
from diffpref.ranking.agreement import Agreement, PairOfScorers, agreement
from diffpref.ranking.calibrated import Calibration, calibrate, range_scale
from diffpref.ranking.calibration import (
    PICKSCORE_COSINES,
    calibrated_rewards,
    fronts,
    majority_vote,
    rarity_weights,
    smoothed_preference,
    win_shares,
)
from diffpref.ranking.curation import curated_distribution
from diffpref.ranking.curriculum import curriculum, curriculum_floors
from diffpref.ranking.ensembles import COMBINATIONS, Combination, agreed_pairs, combine, disagreement, standardised
from diffpref.ranking.instances import close_then_far
from diffpref.ranking.pairings import PAIRINGS, Pairing, adjacent, all_pairs, best_vs_worst
from diffpref.ranking.ranks import num_unscored, order, ranks
from diffpref.ranking.rejection import acceptance, first_round, reject_sample, tournament
from diffpref.ranking.reliability import (
    ReliabilityBin,
    accuracy_with_ties,
    calibration_error,
    fitted_scale,
    log_loss,
    reliability,
    win_probability,
)
from diffpref.ranking.segments import agreed_label, equal_parts, held_most, latent_segments, parts_of, whole_label
from diffpref.ranking.steps import dynamic_thresholds, step_pair
from diffpref.ranking.tree_search import backed_up, node_value, prior, puct
from diffpref.ranking.win_rates import Matrix, both_orders, mean_margins, preference_matrix, win_rates

__all__ = [
    "COMBINATIONS",
    "PAIRINGS",
    "PICKSCORE_COSINES",
    "Agreement",
    "Calibration",
    "Combination",
    "Matrix",
    "PairOfScorers",
    "Pairing",
    "ReliabilityBin",
    "acceptance",
    "accuracy_with_ties",
    "adjacent",
    "aggregated_advantages",
    "agreed_label",
    "agreed_pairs",
    "agreement",
    "all_pairs",
    "backed_up",
    "best_vs_worst",
    "both_orders",
    "buffered_advantages",
    "calibrate",
    "calibrated_rewards",
    "calibration_error",
    "close_then_far",
    "combine",
    "curated_distribution",
    "curriculum",
    "curriculum_floors",
    "disagreement",
    "dynamic_thresholds",
    "equal_parts",
    "first_round",
    "fitted_scale",
    "fronts",
    "group_advantages",
    "held_most",
    "latent_segments",
    "log_loss",
    "majority_vote",
    "mean_margins",
    "node_value",
    "num_unscored",
    "order",
    "parts_of",
    "preference_matrix",
    "prior",
    "puct",
    "range_scale",
    "ranks",
    "rarity_weights",
    "reject_sample",
    "reliability",
    "smoothed_preference",
    "standardised",
    "step_pair",
    "tournament",
    "whole_label",
    "win_probability",
    "win_rates",
    "win_shares",
]
