"""A role behind a bank: asked once about a row, read from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from diffpref.cache.bank import Bank, Keys, row_keys
from diffpref.core.contracts import Likelihood, Role, Rows
from diffpref.core.errors import ConfigError

__all__ = ["BankedRole"]


@dataclass(frozen=True)
class BankedRole:
    """Answers with what the likelihood reads of a role's answers, from the bank where all rows of a question are in it.

    Else the role is asked about all of them, so that the number of rows in a forward is always the same; every process
    asks when one of them must, and all of them keep what each has learnt.

    Args:
        name: of the role, for messages.
        role: the live one.
        likelihood: says what is kept.
        open_bank: opens the bank for a number of rows in a forward.
        trained: roles that change while the run trains; rows made with them are refused.
        gather: puts the tensors of all processes after one another; None where there is one process.
        rank: of this process.
    """

    name: str
    role: Role
    likelihood: Likelihood
    open_bank: Callable[[int], Bank]
    trained: frozenset[str] = frozenset({"policy"})
    gather: Callable[[Tensor], Tensor] | None = None
    rank: int = 0
    banks: dict[int, Bank] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"read": 0, "asked": 0})

    def __call__(self, rows: Rows, grad: bool = False) -> dict[str, Tensor]:
        """Return `Likelihood.raw` of the role's answers.

        Raises:
            ConfigError: gradients are asked of it, or the rows depend on a role that is trained.
        """
        if grad:
            raise ConfigError(f"role '{self.name}' is read from a bank and gives no gradients; set bank.slots to 0")
        if made_by := sorted(rows.depends_on & self.trained):
            raise ConfigError(
                f"bank.slots: must be 0 with a method that makes its inputs with a trained role ({', '.join(made_by)}):"
                f" '{self.name}' is asked about other rows each time"
            )
        keys, device = row_keys(rows), next(iter(rows.inputs.values())).device
        bank = self._bank(len(keys))
        numbers, found = bank.get(keys)
        names = self.likelihood.raw_names
        everywhere = bool(found.all())
        if self.gather is not None:
            everywhere = bool(self.gather(torch.tensor([everywhere], device=device)).all())
        if everywhere:
            self.counts["read"] += len(keys)
            read = torch.from_numpy(numbers).to(device)
            return {name: read[:, column] for column, name in enumerate(names)}
        self.counts["asked"] += len(keys)
        raw = self.likelihood.raw(self.role(rows), rows)
        self._keep(bank, keys, raw)
        return raw

    def _keep(self, bank: Bank, keys: Keys, raw: Mapping[str, Tensor]) -> None:
        columns = [raw[name].detach() for name in self.likelihood.raw_names]
        if any(column.dtype != torch.float32 for column in columns):
            raise ConfigError(f"role '{self.name}': a bank holds float32 numbers, got {columns[0].dtype}")
        numbers = torch.stack(columns, dim=1)
        if self.gather is None:
            bank.add(keys, numbers.cpu().numpy())
            return
        all_keys = self.gather(torch.from_numpy(keys.copy()).to(numbers.device)).cpu().numpy()
        all_numbers = self.gather(numbers).cpu().numpy()
        own = np.arange(len(all_keys)) // len(keys) == self.rank
        for mine in (True, False):
            bank.add(all_keys[own == mine], all_numbers[own == mine], save=mine)

    def _bank(self, rows: int) -> Bank:
        if rows not in self.banks:
            self.banks[rows] = self.open_bank(rows)
        return self.banks[rows]

    def flush(self) -> None:
        """Write what the banks have learnt."""
        for bank in self.banks.values():
            bank.flush()
