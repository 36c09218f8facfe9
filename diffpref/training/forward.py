"""One micro-batch: prepare, ask the roles, likelihood, objectives. It changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffpref.core.contracts import Batch, Context, Likelihood, Tensors, Terms
from diffpref.objectives.compose import reduce_sums
from diffpref.training.plan import Plan

__all__ = ["Forward", "judge", "run_forward"]

RATIO = "_log_ratio"


@dataclass(frozen=True)
class Forward:
    """What the objectives say of a micro-batch, or of all records of an update.

    Args:
        sums: (terms,) sum of weights * losses of each objective term, with gradient.
        weights: (terms,) sum of weights.
        finite: (B,) whether every loss of a record is finite.
        metrics: detached (B,) tensors.
        log_ratios: group -> policy against reference, detached (B,) or (B, K).
        state: the objectives' running statistics after these records.
    """

    sums: Tensor
    weights: Tensor
    finite: Tensor
    metrics: dict[str, Tensor]
    log_ratios: dict[str, Tensor]
    state: Tensors = field(default_factory=dict)


def run_forward(
    plan: Plan, likelihood: Likelihood, batch: Batch, context: Context, state: Tensors | None = None
) -> Forward:
    """Ask every role that the objectives name about a micro-batch, the policy last and with gradient."""
    rows = plan.method.prepare(batch, context)
    outputs = {
        name: context.roles[name](rows, grad=name == "policy")
        for name in sorted(plan.roles, key=lambda name: name == "policy")
    }
    return judge(plan, likelihood(plan.names, outputs, rows), rows.columns, state)


def judge(plan: Plan, values: Tensors, columns: Tensors, state: Tensors | None = None) -> Forward:
    """Compute the objectives and what the log says.

    Args:
        plan: names the objectives.
        values: what the likelihood gives, by vocabulary name.
        columns: of the data.
        state: the objectives' running statistics before these records.
    """
    tensors = {**values, **columns}
    terms = [(factor, name, _weighted(term, columns)) for factor, name, term in plan.composition(tensors, state)]
    metrics = {name: value for _, _, term in terms for name, value in term.metrics.items()}
    if "chosen_log_ratio" in values and "rejected_log_ratio" in values:
        metrics |= plan.composition.metrics(tensors)
    for group in plan.groups:
        metrics |= _watched(group, values)
    sums, weights = zip(*reduce_sums(terms), strict=True)
    return Forward(
        torch.stack(sums),
        torch.stack(weights),
        _finite([term.losses for _, _, term in terms]),
        {name: value.detach().float() for name, value in metrics.items()},
        {name[: -len(RATIO)]: value.detach() for name, value in values.items() if name.endswith(RATIO)},
        {name: value.detach() for _, _, term in terms for name, value in (term.state or {}).items()},
    )


def _watched(group: str, values: Tensors) -> dict[str, Tensor]:
    """Return what the log says of a group besides the objective's own metrics."""
    metrics = {}
    policy, reference = (values.get(f"{role}_{group}_errors") for role in ("policy", "reference"))
    if (logps := values.get(f"policy_{group}_logps")) is not None:
        metrics[f"logps/{group}"] = logps
    if policy is not None:
        metrics[f"errors/{group}"] = policy
    if policy is not None and reference is not None:
        metrics[f"errors/{group}_vs_reference"] = policy - reference
    return metrics


def _weighted(term: Terms, columns: Tensors) -> Terms:
    """Multiply a term's weights by the data column ``weight`` where there is one."""
    column = columns.get("weight")
    if column is None:
        return term
    weights = column.to(term.losses) if term.weights is None else term.weights * column
    return Terms(term.losses, weights, term.state, term.metrics)


def _finite(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack([loss.detach().isfinite() for loss in losses]).all(dim=0)
