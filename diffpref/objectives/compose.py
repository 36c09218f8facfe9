"""Several objectives as one, each with what a recipe adds to it: weights, margins, other groups.

- dpo: {beta: 0.1, weighting: {madpo: {tau: 2.0}}, margin_clip: 5.0}
- nll: {coefficient: 0.5, normalize: tokens}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffpref.core.contracts import Tensors, Terms
from diffpref.core.errors import ConfigError
from diffpref.core.vocabulary import FULL, parse, required_groups, required_roles
from diffpref.objectives.base import registry
from diffpref.objectives.metrics import reward_metrics
from diffpref.objectives.term import Term, read_term

__all__ = ["Composition", "compose", "reduce_sums"]


@dataclass(frozen=True)
class Composition:
    """Objectives that are computed from the same tensors and added. Make it with `compose`."""

    terms: tuple[Term, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The vocabulary names that must be there."""
        return tuple(dict.fromkeys(name for term in self.terms for name in term.tensors))

    @property
    def optional(self) -> tuple[str, ...]:
        """The data columns that are used when they are there."""
        names = (name for term in self.terms for name in term.optional)
        return tuple(name for name in dict.fromkeys(names) if name not in self.tensors)

    @property
    def deaf_to_preference(self) -> tuple[str, ...]:
        """The terms that compare a pair as if its label were certain, whatever the column ``preference`` says."""
        return tuple(
            term.spec.name
            for term in self.terms
            if term.spec.kind == "pairwise" and "preference" not in (*term.spec.tensors, *term.spec.optional)
        )

    @property
    def roles(self) -> frozenset[str]:
        """The roles whose models must run."""
        return required_roles(self.tensors)

    @property
    def groups(self) -> frozenset[str]:
        """The groups of samples that the models are asked about."""
        return required_groups(self.tensors)

    @property
    def coupling(self) -> str | None:
        """``"batch"`` when any term couples the records of a batch."""
        return "batch" if any(term.spec.coupling_of(term.options) for term in self.terms) else None

    @property
    def effective_options(self) -> list[dict[str, dict[str, Any]]]:
        """The terms with every option written out; composing them again gives the same composition."""
        return [{term.spec.name: term.effective} for term in self.terms]

    def initial_state(self) -> dict[str, Tensor]:
        """Return the running statistics of all terms before the first update, as ``"<position>.<name>"``."""
        return {
            f"{position}.{name}": tensor
            for position, term in enumerate(self.terms)
            for name, tensor in term.initial_state().items()
        }

    def __call__(self, tensors: Tensors, state: Tensors | None = None) -> list[tuple[float, str, Terms]]:
        """Compute every term.

        Args:
            tensors: at least `tensors`, and of `optional` what the batch has; anything else is ignored.
            state: running statistics, as `initial_state` names them; None starts afresh.

        Returns:
            (coefficient, objective name, terms) each; ``Terms.state`` is named as in ``state``.

        Raises:
            ConfigError: a tensor is missing.
            ShapeError: a tensor has not the shape that its name promises.
        """
        results = []
        for position, term in enumerate(self.terms):
            value = term(tensors, self._own(position, state))
            if value.state is not None:
                renamed = {f"{position}.{name}": tensor for name, tensor in value.state.items()}
                value = Terms(value.losses, value.weights, renamed, value.metrics)
            if value.metrics and sum(one.spec.name == term.spec.name for one in self.terms) > 1:  # or one would hide
                numbered = {f"{name}/{position}": tensor for name, tensor in value.metrics.items()}
                value = Terms(value.losses, value.weights, value.state, numbered)
            results.append((term.coefficient, term.spec.name, value))
        return results

    @staticmethod
    def _own(position: int, state: Tensors | None) -> dict[str, Tensor] | None:
        prefix = f"{position}."
        if state is None:
            return None
        return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}

    @property
    def pair_beta(self) -> float | None:
        """The beta of the first term that compares a pair by its log-ratios alone; None where there is none.

        A term that also reads whole answers, such as `dspo`, learns from these, however small its logit.
        """
        position = self._paired()
        if position is None or any(parse(name).quantity in FULL for name in self.terms[position].tensors):
            return None
        return float(self.terms[position].options.model_dump()["beta"])

    def _paired(self) -> int | None:
        for position, term in enumerate(self.terms):
            beta = getattr(term.options, "beta", None)
            if beta is not None and {"chosen_log_ratio", "rejected_log_ratio"} <= set(term.tensors):
                return position
        return None

    def metrics(self, tensors: Tensors, state: Tensors | None = None) -> dict[str, Tensor]:
        """Return `reward_metrics` with the beta of `pair_beta`, or what it has become; without one nothing."""
        position = self._paired()
        if position is None:
            return {}
        term = self.terms[position]
        beta = term.reshaping.current_beta(self._own(position, state))
        return reward_metrics(
            chosen_log_ratio=tensors["chosen_log_ratio"],
            rejected_log_ratio=tensors["rejected_log_ratio"],
            beta=float(term.options.model_dump()["beta"] if beta is None else beta),
        )


def compose(terms: Sequence[tuple[str, Mapping[str, Any]]], likelihood: str = "denoising") -> Composition:
    """Validate a list of objectives with their options.

    Args:
        terms: (name or alias, options) each. Besides the objective's own options every term may carry

            - ``coefficient`` (default 1): the factor before its reduced loss;
            - ``weighting``: a name of `diffpref.objectives.weightings`, ``{name: options}``, or a list of
              these, whose product multiplies the losses;
            - ``automatic_beta``, ``margin_clip``, ``dpop``, ``safeguard``: see `diffpref.objectives.reshaping`;
            - ``groups``: which samples take part, ``{rejected: mismatched}`` for the rejected ones' place.
        likelihood: decides defaults that depend on the scale of log-likelihoods.

    Raises:
        ConfigError: everything that is wrong, a line each, such as ``objective[0].dpo.beta: must be > 0, got -1``.
    """
    if not terms:
        raise ConfigError("objective: at least one term is needed, such as {dpo: {beta: 5000}}")
    valid, errors = [], []
    for position, (name, values) in enumerate(terms):
        try:
            spec = registry.get(name).spec
        except ConfigError as error:
            errors.append(f"objective[{position}]: {error}")
            continue
        try:
            valid.append(read_term(spec, values, likelihood, f"objective[{position}].{name}"))
        except ConfigError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    return Composition(tuple(valid))


def reduce_sums(terms: Sequence[tuple[float, str, Terms]]) -> list[tuple[Tensor, Tensor]]:
    """Return (sum of weights * losses, sum of weights) of each term.

    Both add up over accumulation steps and ranks, so that the step's loss ``sum_k coefficient_k * S_k / W_k`` is the
    same however the batch is divided. Weights carry no gradient.
    """
    sums = []
    for _, _, term in terms:
        if term.weights is None:
            weights = torch.ones_like(term.losses)
        else:
            weights = term.weights.detach().to(term.losses.dtype)
        sums.append(((weights * term.losses).sum(), weights.sum()))
    return sums
