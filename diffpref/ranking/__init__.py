"""From scores to pairs, ranks, win rates and accepted samples: pure functions that see numbers only."""

from __future__ import annotations

from diffpref.ranking.curriculum import curriculum
from diffpref.ranking.pairings import PAIRINGS, Pairing, adjacent, all_pairs, best_vs_worst
from diffpref.ranking.ranks import num_unscored, order, ranks
from diffpref.ranking.rejection import acceptance, first_round, reject_sample, tournament
from diffpref.ranking.win_rates import Matrix, both_orders, mean_margins, preference_matrix, win_rates

__all__ = [
    "PAIRINGS",
    "Matrix",
    "Pairing",
    "acceptance",
    "adjacent",
    "all_pairs",
    "best_vs_worst",
    "both_orders",
    "curriculum",
    "first_round",
    "mean_margins",
    "num_unscored",
    "order",
    "preference_matrix",
    "ranks",
    "reject_sample",
    "tournament",
    "win_rates",
]
