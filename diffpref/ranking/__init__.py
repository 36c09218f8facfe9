"""From scores to pairs and ranks: pure functions that see numbers only."""

from __future__ import annotations

from diffpref.ranking.pairings import PAIRINGS, Pairing, adjacent, all_pairs, best_vs_worst
from diffpref.ranking.ranks import num_unscored, order, ranks

__all__ = ["PAIRINGS", "Pairing", "adjacent", "all_pairs", "best_vs_worst", "num_unscored", "order", "ranks"]
