"""Any objective; here one of lists, which the other rows have not."""

from __future__ import annotations

from method_cases import MethodCase

CASE = MethodCase("denoising", {"objective": "lipo_lambda"})
