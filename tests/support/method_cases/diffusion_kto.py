"""Single samples: winners and losers of the pairs."""

from __future__ import annotations

from method_cases import MethodCase

CASE = MethodCase("diffusion_kto", {"data__positive_share": 0.5, "data__mixed_labels": "good"})
