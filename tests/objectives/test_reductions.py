"""One table of all identities that the papers state or imply: what an objective becomes in a limit, or equals."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_cases import B, tensor_named
from torch import Tensor

from diffpref.core.contracts import Terms

TABLES = {
    path.stem: runpy.run_path(str(path))["TABLE"]
    for path in sorted((Path(__file__).parent / "reductions").glob("*.py"))
}
IDENTITIES = [
    pytest.param(identity, id=f"{stem}: {statement}")
    for stem, table in TABLES.items()
    for statement, identity in table.items()
]


class Inputs:
    """Tensors by their vocabulary names: ``x("chosen_log_ratio rejected_log_ratio")``, the same each time."""

    one = torch.ones(B, dtype=torch.float64)
    zero = torch.zeros(B, dtype=torch.float64)

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, names: str) -> dict[str, Tensor]:
        return {name: self[name] for name in names.split()}

    def __getitem__(self, name: str) -> Tensor:
        return tensor_named(name, self.seed)


@pytest.mark.parametrize("identity", IDENTITIES)
def test_identity_holds(identity: Callable[[Inputs], tuple[Any, Any]]) -> None:
    for seed in range(3):
        left, right = (side.losses if isinstance(side, Terms) else side for side in identity(Inputs(seed)))
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)
