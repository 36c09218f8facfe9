"""Few levels: every call of an inversion is a forward."""

from __future__ import annotations

from method_cases import MethodCase

CASE = MethodCase("ddim_inpo", {"method": {"ddim_inpo": {"num_steps": 4}}})
