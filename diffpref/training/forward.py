"""One micro-batch: prepare, ask the roles, likelihood, objectives. It changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from diffpref.core.contracts import Batch, Context, Likelihood, Role, Rows, Tensors, Terms
from diffpref.core.vocabulary import parse
from diffpref.objectives.compose import reduce_sums
from diffpref.sampling import GuidedRole
from diffpref.training.drawn import drawn
from diffpref.training.plan import Plan

__all__ = ["Forward", "Watcher", "ask_role", "judge", "record_timesteps", "run_forward", "spread_keys"]


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
        losses: (terms, B) unreduced, detached.
        read: the model quantities that the objectives read, by vocabulary name.
        gradients: d loss / d of these, where the backward pass was.
        timesteps: (B,), or None where the method has none.
        keys: of the records.
        members: metric -> (B,) 1 for the records that it is the mean of, where these are not all.
    """

    sums: Tensor
    weights: Tensor
    finite: Tensor
    metrics: dict[str, Tensor]
    log_ratios: dict[str, Tensor]
    state: Tensors
    losses: Tensor
    read: Tensors
    gradients: Tensors = field(default_factory=dict)
    timesteps: Tensor | None = None
    keys: tuple[tuple[str, int], ...] = ()
    members: Tensors = field(default_factory=dict)


class Watcher(Protocol):
    """Looks at an update while it is done; must change nothing."""

    def asked(self, batch: Batch, rows: Rows, outputs: Mapping[str, Tensors]) -> None:
        """After the roles answered about a micro-batch."""
        ...

    def judged(self, seen: Sequence[Forward]) -> None:
        """After the backward passes: what the objectives said of the update's records, in their order."""
        ...


def run_forward(
    plan: Plan,
    likelihood: Likelihood,
    batch: Batch,
    context: Context,
    state: Tensors | None = None,
    watcher: Watcher | None = None,
) -> Forward:
    """Ask every role that the objectives name about a micro-batch, the policy last and with gradient."""
    rows = plan.method.prepare(batch, context)
    outputs = {name: ask_role(context, name, rows, grad=name in plan.trained) for name in plan.asked}
    if watcher is not None:
        watcher.asked(batch, rows, outputs)
    values = dict(likelihood(plan.names, outputs, rows))
    values |= drawn(plan.composition.tensors, values, batch.keys, context.random)
    forward = judge(plan, values, rows.columns, state)
    return replace(forward, timesteps=record_timesteps(rows), keys=spread_keys(batch.keys, len(forward.finite)))


def spread_keys(keys: Sequence[tuple[str, int]], count: int) -> tuple[tuple[str, int], ...]:
    """Return a key for each of ``count`` entries of an objective: where a method asks about each record at several
    timesteps apart, a record's entries lie one after another.

    >>> spread_keys([("a", 0), ("b", 0)], 4)
    (('a', 0), ('a', 0), ('b', 0), ('b', 0))
    """
    return tuple(key for key in keys for _ in range(count // len(keys)))


def ask_role(context: Context, name: str, rows: Rows, grad: bool = False) -> Tensors:
    """Return a role's answers: those that came with the rows, else it is asked, under the rows' guidance."""
    if name in rows.answers and not grad:
        return rows.answers[name]
    role: Role = context.roles[name]
    if rows.negative is not None and rows.guidance != 1:
        role = GuidedRole(role, rows.negative, rows.guidance)
    return role(rows, grad=grad)


def record_timesteps(rows: Rows) -> Tensor | None:
    """Return (B,) the timestep of each record, that of its first sample and draw; None where rows have none."""
    timesteps, index = rows.inputs.get("timesteps"), next(iter(rows.groups.values()), None)
    if timesteps is None or index is None:
        return None
    first = index if index.dim() == 1 else index[:, 0]
    return timesteps[first.to(timesteps.device)].detach()


def judge(plan: Plan, values: Tensors, columns: Tensors, state: Tensors | None = None) -> Forward:
    """Compute the objectives and what the log says.

    Args:
        plan: names the objectives.
        values: what the likelihood gives, by vocabulary name.
        columns: of the data.
        state: the objectives' running statistics before these records.
    """
    tensors = {**values, **columns}
    terms = []
    for own, (factor, name, term) in zip(plan.composition.terms, plan.composition(tensors, state), strict=True):
        read = "weight" in (*own.spec.tensors, *own.spec.optional)  # what it does with the weight is in its losses
        terms.append((factor, name, term if read else _weighted(term, columns)))
    metrics = {name: value for _, _, term in terms for name, value in term.metrics.items()}
    if "chosen_log_ratio" in values and "rejected_log_ratio" in values:
        metrics |= plan.composition.metrics(tensors, state)
    if "rewards/margins" in metrics:
        metrics["logits/scale"] = metrics["rewards/margins"].abs()
    metrics |= _scored(values, columns)
    for group in plan.groups:
        metrics |= _watched(group, values, columns.get("list_mask"))
    labelled, members = _by_label(plan, values, columns)
    metrics |= labelled
    sums, weights = zip(*reduce_sums(terms), strict=True)
    losses = torch.stack([term.losses.detach() for _, _, term in terms])
    return Forward(
        sums=torch.stack(sums),
        weights=torch.stack(weights),
        finite=losses.isfinite().all(dim=0),
        metrics={name: value.detach().float() for name, value in metrics.items()},
        log_ratios={
            name.removesuffix("log_ratio").rstrip("_"): value.detach()
            for name, value in values.items()
            if name.endswith("log_ratio")
        },
        state={name: value.detach() for _, _, term in terms for name, value in (term.state or {}).items()},
        losses=losses,
        members=members,
        read={name: values[name] for name in plan.composition.tensors if name in values and _is_number(name)},
    )


def _is_number(name: str) -> bool:
    """Whether a quantity is a few numbers a record, not a whole answer of a model."""
    return parse(name).ndim is not None


def _watched(group: str, values: Tensors, there: Tensor | None) -> dict[str, Tensor]:
    """Return what the log says of a group besides the objective's own metrics; of a list its candidates' mean."""
    metrics, told, start = {}, group or "single", f"{group}_" if group else ""
    policy, reference = (values.get(f"{role}_{start}errors") for role in ("policy", "reference"))
    if (logps := values.get(f"policy_{start}logps")) is not None:
        metrics[f"logps/{told}"] = logps
    if policy is not None:
        metrics[f"errors/{told}"] = policy
    if policy is not None and reference is not None:
        metrics[f"errors/{told}_vs_reference"] = policy - reference
    if group == "list" and metrics:
        there = torch.ones_like(next(iter(metrics.values()))) if there is None else there
        metrics = {name: (value * there).sum(dim=1) / there.sum(dim=1) for name, value in metrics.items()}
    return metrics


def _scored(values: Tensors, columns: Tensors) -> dict[str, Tensor]:
    """Return what the log says of a pair's scores by a reward model in training; of a tie there is no accuracy."""
    chosen, rejected = values.get("policy_chosen_score"), values.get("policy_rejected_score")
    if chosen is None or rejected is None:
        return {}
    right = (chosen > rejected).float()
    if (preference := columns.get("preference")) is not None:
        right = torch.where(preference == 0.5, 0.5, right)
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": right,
    }


def _by_label(plan: Plan, values: Tensors, columns: Tensors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return implicit rewards and log-likelihoods of good and of bad single samples, and which samples are which."""
    label, ratio, logps = columns.get("label"), values.get("log_ratio"), values.get("policy_logps")
    if plan.view != "points" or label is None:
        return {}, {}
    betas = [getattr(term.options, "beta", None) for term in plan.composition.terms if "log_ratio" in term.tensors]
    told = {} if logps is None else {"logps": logps}
    if ratio is not None and betas and betas[0] is not None:
        told["rewards"] = float(betas[0]) * ratio
    kinds = {"chosen": (label > 0.5).float(), "rejected": (label <= 0.5).float()}
    names = {f"{what}/{kind}": (value, there) for what, value in told.items() for kind, there in kinds.items()}
    return {name: value for name, (value, _) in names.items()}, {name: there for name, (_, there) in names.items()}


def _weighted(term: Terms, columns: Tensors) -> Terms:
    """Multiply a term's weights by the data column ``weight`` where there is one."""
    column = columns.get("weight")
    if column is None:
        return term
    weights = column.to(term.losses) if term.weights is None else term.weights * column
    return Terms(term.losses, weights, term.state, term.metrics)
