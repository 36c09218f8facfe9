"""The likelihood of a language model: log-probabilities of the tokens of a completion, given its prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffpref.core.contracts import Rows, Tensors
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.core.vocabulary import Name, parse
from diffpref.likelihood._gathering import gather
from diffpref.likelihood._registry import registry
from diffpref.likelihood.head import Head, read_tokens

__all__ = ["IGNORED", "TokenLikelihood", "head_tensors", "places", "read_head", "read_role", "spread"]

IGNORED = -100
"""The label of a token that is not predicted: of the prompt, and padding."""
SUMS = ("logps", "log_ratio", "kl", "collision")
"""What is a sum over the tokens of a completion, and is there of each token too."""
OF_ROWS = frozenset({"score", "scores", "log_std", "logits", "embedding"})
"""What heads say of whole rows."""
SUMMED = frozenset(f"token_{name}" for name in SUMS)
JOINT = frozenset({"kl", "token_kl"})
"""Quantities for which two models are needed at once, so that their hidden states are kept."""


def places(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the tokens of completions are: row, position of the state that predicts it, number in its row.

    Args:
        labels: (N, T) int64, `IGNORED` where nothing is predicted. A token at position 0 has nothing before it.
    """
    predicted = labels[:, 1:] != IGNORED
    row, place = predicted.nonzero(as_tuple=True)
    number = predicted.cumsum(dim=1)[row, place] - 1
    return row, place, number


def spread(values: Tensor, labels: Tensor, where: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
    """Put (M, ...) values of tokens into (N, T, ...): each row's from its beginning, zeros after the last."""
    row, _, number = places(labels) if where is None else where
    return values.new_zeros((*labels.shape, *values.shape[1:])).index_put((row, number), values)


def head_tensors(head: Head) -> dict[str, Tensor]:
    """Return a head as tensors, the form in which a role answers."""
    found = {"head_weight": head.weight, "head_scale": torch.tensor(head.scale, dtype=torch.float64)}
    if head.bias is not None:
        found["head_bias"] = head.bias
    if head.soft_cap is not None:
        found["head_soft_cap"] = torch.tensor(head.soft_cap, dtype=torch.float64)
    return found


def read_head(answers: Tensors) -> Head:
    """Return the head that a role answered with."""
    cap = answers.get("head_soft_cap")
    return Head(
        answers["head_weight"],
        answers.get("head_bias"),
        float(answers["head_scale"]),
        None if cap is None else float(cap),
    )


def read_role(states: Tensor, head: Head, labels: Tensor, wanted: frozenset[str] = frozenset()) -> dict[str, Tensor]:
    """Return what a role answers: a few numbers a token, or its hidden states where two models are compared.

    Args:
        states: (M, D) hidden states that predict the tokens of the completions, in the order of `places`.
        head: of the model.
        labels: (N, T).
        wanted: quantities that the objectives ask for, with their units.

    Returns:
        ``token_logps`` and, if wanted, ``token_collision``, (N, T) each; or ``states`` and the head's tensors.
    """
    if wanted & JOINT:
        return {"states": states, **head_tensors(head)}
    where = places(labels)
    found = read_tokens(
        states, head, labels[where[0], where[1] + 1], collision=bool(wanted & {"collision", "token_collision"})
    )
    return {f"token_{name}": spread(values, labels, where) for name, values in found.items()}


@registry.register("tokens")
@dataclass(frozen=True)
class TokenLikelihood:
    """Log-probabilities of completions in nats: sums over their tokens, the end-of-text token among them.

    Args:
        trained: roles into which gradients flow.
    """

    trained: frozenset[str] = frozenset({"policy"})

    provides: ClassVar[frozenset[str]] = frozenset(
        {
            *SUMS,
            *(f"token_{name}" for name in SUMS),
            "token_value",
            "token_weight",
            "token_kl_weight",
            *OF_ROWS,
            "length",
            "token_mask",
        }
    )
    from_raw: ClassVar[frozenset[str]] = frozenset({"logps", "log_ratio", "length", "token_mask"})
    raw_names: ClassVar[tuple[str, ...]] = ("logps",)
    lacks: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "errors": "a language model has no denoising errors; choose an objective of logps or log_ratio",
            "prediction": "a language model predicts tokens, not clean data; choose an objective of logps or log_ratio",
        }
    )

    @classmethod
    def build(cls, family: Any, settings: Any, trained: frozenset[str]) -> TokenLikelihood:
        """Return the likelihood of a language model; it has no settings."""
        return cls(trained)

    def __call__(self, names: Sequence[str], outputs: Mapping[str, Tensors], rows: Rows) -> dict[str, Tensor]:
        """Return a tensor for each name, float32, or float64 where the models are.

        - ``<role>_<group>_logps``: sum of log p(token) over the completion.
        - ``<group>_log_ratio``, ``<role>_<group>_log_ratio``: of the policy, or of the role, minus the reference's.
        - ``<group>_kl``: sum over the completion of KL(reference || policy) over the whole vocabulary; with a role,
          KL(reference || role).
        - ``<role>_<group>_collision``: sum of log sum_v p(v)^2, without gradient.
        - each of them with the unit ``token``: the parts of the sum, (B, T) or (B, K, T): the tokens of a completion
          from its first on, zeros after its last.
        - ``<role>_<group>_token_value``: what the role's value head says before each of these tokens.
        - ``<role>_<group>_token_weight``, ``..._token_kl_weight``: what its mask heads say there; of a role that is not
          trained, the mask of its activations.
        - ``<role>_<group>_score``, ``..._scores``, ``..._log_std``, ``..._logits`` and ``..._embedding``: what the
          role's heads say of whole rows.
        - ``<group>_length``: how many tokens the completion has; ``<group>_token_mask``: 1 at each of them.

        Sums are (B,) or, for ``list``, (B, K): row ``rows.groups[group]``, for pointwise names ``rows.groups[""]``.
        Where a row is absent (-1) the value is 0 without gradient, so mask it. Gradient flows into the trained roles
        alone, and not into groups of ``rows.no_grad``.

        Args:
            names: vocabulary names of the above forms.
            outputs: role -> what `read_role` returned, or what `raw` made of it.
            rows: ``inputs["labels"]`` (N, T).

        Raises:
            ConfigError: a name asks for what token probabilities do not give, or for a role or group that is not there.
            ShapeError: the answers do not fit the labels.
        """
        parsed = [self._check(parse(name), rows) for name in names]
        needed: dict[str, set[str]] = {}
        for name in parsed:
            for role in sorted(name.roles):
                if role not in outputs:
                    raise ConfigError(f"likelihood 'tokens': '{name}' needs role '{role}', which did not run")
                needed.setdefault(role, set())
            if name.kind == "model":
                needed[name.role or "policy"].add(name.quantity)
        said = self._said(needed, outputs, rows)
        result = {}
        for name in parsed:
            values = _of_labels(name, rows.inputs["labels"]) if name.kind == "data" else self._values(name, said)
            values = values.detach() if name.group in rows.no_grad else values
            result[str(name)] = gather(values, rows.groups[name.group])
        return result

    def _values(self, name: Name, said: Mapping[str, Tensors]) -> Tensor:
        own = said[name.role or "policy"]
        key = str(Name("", "", name.unit, "logps" if name.quantity == "log_ratio" else name.quantity, "model"))
        sides = [own, said["reference"]] if name.quantity == "log_ratio" else [own]
        if any(key not in side for side in sides):
            raise ConfigError(f"likelihood 'tokens': '{name}' is of single tokens, and a role's answers are sums")
        return own[key] - said["reference"][key] if name.quantity == "log_ratio" else own[key]

    def _check(self, name: Name, rows: Rows) -> Name:
        if name.form not in self.provides:
            raise ConfigError(
                f"likelihood 'tokens' does not provide '{name}'; it provides {', '.join(sorted(self.provides))}, with a"
                " role (log_ratio and kl without one compare policy and reference)"
            )
        if name.group not in rows.groups:
            raise ConfigError(f"'{name}' needs group '{name.group}'; the method prepared {', '.join(rows.groups)}")
        return name

    def _said(
        self, needed: Mapping[str, set[str]], outputs: Mapping[str, Tensors], rows: Rows
    ) -> dict[str, dict[str, Tensor]]:
        """Return role -> its numbers, reading the hidden states of roles that kept them: two models in one sweep."""
        said: dict[str, dict[str, Tensor]] = {}
        labels = rows.inputs["labels"]
        for role in sorted(needed, key=lambda role: role == "reference"):
            answers = outputs[role]
            if "states" not in answers:
                own = dict(answers)
            elif role in said:
                continue
            else:
                own = {k: v for k, v in answers.items() if k.startswith("token_") or k in OF_ROWS}
                joint = "kl" in needed[role]
                found = _read(answers, labels, outputs["reference"] if joint else None, "collision" in needed[role])
                if joint:
                    theirs = found.pop("token_other_logps")
                    told = {k: v for k, v in outputs["reference"].items() if k.startswith("token_")}
                    said["reference"] = {**told, "token_logps": theirs, "logps": theirs.sum(dim=1)}
                own |= found
            sums = {name.removeprefix("token_"): value.sum(dim=1) for name, value in own.items() if name in SUMMED}
            own = {**own, **{name: value for name, value in sums.items() if name not in own}}
            said[role] = own if role in self.trained else {name: value.detach() for name, value in own.items()}
            _check_shapes(role, said[role], labels)
        return said

    def raw(self, answers: Tensors, rows: Rows, role: str = "a role") -> dict[str, Tensor]:
        """Return ``logps``, (N,): the sum over each row's completion.

        Args:
            answers: of `read_role`, or already ``logps``.
            rows: the question.
            role: for the message.
        """
        if "logps" in answers:
            return {"logps": answers["logps"]}
        labels = rows.inputs["labels"]
        numbers = _read(answers, labels, None, False) if "states" in answers else answers
        _check_shapes(role, numbers, labels)
        return {"logps": numbers["token_logps"].sum(dim=1)}


def _read(answers: Tensors, labels: Tensor, reference: Tensors | None, collision: bool) -> dict[str, Tensor]:
    where = places(labels)
    if reference is not None and "states" not in reference:
        raise ConfigError("likelihood 'tokens': a KL needs the reference's whole answer, not numbers from a bank")
    against = None if reference is None else (reference["states"], read_head(reference))
    found = read_tokens(answers["states"], read_head(answers), labels[where[0], where[1] + 1], against, collision)
    return {f"token_{name}": spread(values, labels, where) for name, values in found.items()}


def _of_labels(name: Name, labels: Tensor) -> Tensor:
    length = (labels[:, 1:] != IGNORED).sum(dim=1)
    if name.quantity == "length":
        return length.float()
    return (torch.arange(labels.shape[1], device=labels.device) < length.unsqueeze(1)).float()


def _check_shapes(role: str, numbers: Tensors, labels: Tensor) -> None:
    for name, value in numbers.items():
        expected = labels.shape if name.startswith("token_") else labels.shape[:1]
        if value.shape[: len(expected)] != expected:
            raise ShapeError(
                f"likelihood 'tokens': {name} of '{role}' is {tuple(value.shape)}, expected {tuple(expected)}"
            )
