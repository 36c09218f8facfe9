"""What reward models say of rows: scores, their deviations, embeddings. There is nothing to compute, only to gather."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from diffpref.core.contracts import Rows, Tensors
from diffpref.core.errors import ConfigError
from diffpref.core.vocabulary import parse
from diffpref.likelihood._gathering import gather
from diffpref.likelihood._registry import registry

__all__ = ["ScoreLikelihood"]


@registry.register("score")
@dataclass(frozen=True)
class ScoreLikelihood:
    """Scores of a reward model, in its own unit.

    Args:
        trained: roles into which gradients flow.
    """

    trained: frozenset[str] = frozenset({"policy"})

    provides: ClassVar[frozenset[str]] = frozenset({"score", "scores", "log_std", "embedding"})
    from_raw: ClassVar[frozenset[str]] = frozenset({"score"})
    raw_names: ClassVar[tuple[str, ...]] = ("score",)
    lacks: ClassVar[Mapping[str, str]] = MappingProxyType(
        dict.fromkeys(
            ("log_ratio", "logps", "kl", "errors", "prediction"),
            "a reward model scores and generates nothing, so it has no likelihoods; choose an objective of scores, such"
            " as bradley_terry",
        )
    )

    @classmethod
    def build(cls, family: Any, settings: Any, trained: frozenset[str]) -> ScoreLikelihood:
        """Return the likelihood of a reward model; it has no settings."""
        return cls(trained)

    def __call__(self, names: Sequence[str], outputs: Mapping[str, Tensors], rows: Rows) -> dict[str, Tensor]:
        """Return ``<role>_<group>_score``, ``..._scores``, ``..._log_std`` and ``..._embedding`` for each name.

        A score and its deviation are (B,) or, for ``list``, (B, K); several scores and an embedding have one dimension
        more. Where a row is absent (-1) the value is 0 without gradient. Gradient flows into the trained roles alone,
        and not into groups of ``rows.no_grad``.

        Args:
            names: vocabulary names of the above forms.
            outputs: role -> what its model answered.
            rows: the question.

        Raises:
            ConfigError: a name asks for what reward models do not say, or for a role or group that is not there.
        """
        result = {}
        for name in map(parse, names):
            if name.form not in self.provides or name.role not in outputs:
                raise ConfigError(
                    f"likelihood 'score' does not provide '{name}'; it provides {', '.join(sorted(self.provides))} of"
                    f" {', '.join(sorted(outputs))}"
                )
            if name.group not in rows.groups:
                raise ConfigError(f"'{name}' needs group '{name.group}'; the method prepared {', '.join(rows.groups)}")
            if name.quantity not in outputs[name.role]:
                raise ConfigError(f"'{name}': the reward model says only {', '.join(outputs[name.role])}")
            values = outputs[name.role][name.quantity]
            still = name.role not in self.trained or name.group in rows.no_grad
            result[str(name)] = gather(values.detach() if still else values, rows.groups[name.group])
        return result

    def raw(self, answers: Tensors, rows: Rows, role: str = "a role") -> dict[str, Tensor]:
        """Return ``score``, (N,)."""
        return {"score": answers["score"]}
