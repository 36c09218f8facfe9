"""A weighted sum of rewards, as Flow-GRPO's ``multi_score`` is: each item alone, each member in a fixed unit.

    {ensemble: {members: [{pickscore: {path: P, weight: 2.0, mean: 21.0, std: 1.2}}, {hps_v21: {path: H}}]}}

What needs all candidates of a prompt (z-scores, shares of wins, consensus) is no score of an item: it is made of stored
scores, where pairs are made (``data.score: [pickscore, hps]`` with ``data.combine``), by `diffpref.ranking.combine`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from diffpref.config import Named, Section, config_error, load_yaml
from diffpref.core.annotations import NonNegative, Number, Positive, PositiveInt
from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError
from diffpref.core.judging import MediaKind
from diffpref.rewards import registry
from diffpref.rewards._nested import inner_reward
from diffpref.rewards._weights import Precision

__all__ = ["Ensemble", "Member", "fit_members", "load_ensemble"]

MODES = Literal["weighted_sum", "zscore", "win_fraction", "strict_win_fraction", "consensus"]


class _Place(Section):
    """What the ensemble reads of a member; all else is the member's own."""

    weight: NonNegative = 1.0
    mean: Number | None = None
    std: Positive | None = None


@dataclass(frozen=True)
class Member:
    """A reward in an ensemble; it adds ``weight * (score - mean) / std``.

    Args:
        name: under which it is told apart.
        reward: that scores.
        weight: not negative.
        mean: taken off; None: nothing.
        std: divided by; None: 1.
    """

    name: str
    reward: Reward
    weight: float = 1.0
    mean: float | None = None
    std: float | None = None

    def part(self, scores: Tensor) -> Tensor:
        """Return what (N,) scores of this member add; differentiable."""
        return self.weight * self.standardised(scores)

    def standardised(self, scores: Tensor) -> Tensor:
        """Return (N,) scores in the member's unit."""
        return (scores - (self.mean or 0.0)) / (self.std or 1.0)


class Ensemble:
    """Scores by several rewards; NaN where one of them gives NaN. ``score_aspects`` are the members' own scores.

    Args:
        members: at least one; their names differ, and they score the same kind of media.

    Raises:
        ConfigError: no members, a name twice, different kinds of media, no weight above 0, or a member whose scores
            depend on what is asked together.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        _check(self.members)

    @property
    def info(self) -> RewardInfo:
        """Name, version (of the members, their weights and units), licences, range."""
        infos = [member.reward.info for member in self.members]
        told = [
            [member.name, info.version, info.preprocessing, member.weight, member.mean, member.std]
            for member, info in zip(self.members, infos, strict=True)
        ]
        ends = [
            [float(member.part(torch.tensor(end, dtype=torch.float64))) for end in info.range]
            for member, info in zip(self.members, infos, strict=True)
            if member.weight
        ]
        return RewardInfo(
            name="ensemble",
            version=f"sha256-{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]}",
            licence="; ".join(dict.fromkeys(info.licence for info in infos)),
            range=(math.fsum(low for low, _ in ends), math.fsum(high for _, high in ends)),
            needs_prompt=any(info.needs_prompt for info in infos),
            needs_metadata=any(info.needs_metadata for info in infos),
            differentiable=all(info.differentiable for info in infos),
            media=_kinds(infos)[0],
            also=tuple(_kinds(infos)[1:]),
            preprocessing="; ".join(dict.fromkeys(info.preprocessing for info in infos)),
            aspects=tuple(member.name for member in self.members),
        )

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32: the weighted sum for N items and N prompts.

        Raises:
            ShapeError: not as many prompts as items.
            DataError: an item is of another kind than the members score.
        """
        found = self.score_aspects(media, prompts, metadata)
        total = sum(member.part(found[member.name].double()) for member in self.members)
        return torch.as_tensor(total).float()

    def score_aspects(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        """Return (N,) float32 by each member, in the member's own unit."""
        return {member.name: member.reward.score(media, prompts, metadata) for member in self.members}

    def disagreement(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32: the standard deviation of each item's standardised scores over the members.

        Raises:
            ConfigError: a member has no mean and std, without which units decide.
        """
        if unfit := [member.name for member in self.members if member.mean is None or member.std is None]:
            raise ConfigError(
                f"reward 'ensemble': member '{unfit[0]}' has no mean and std, so that disagreement would be of units;"
                " state them, or fit them with fit_members"
            )
        found = self.score_aspects(media, prompts, metadata)
        rows = [member.standardised(found[member.name].double()) for member in self.members]
        return torch.stack(rows).std(dim=0, correction=0).float()


class _Differentiable(Ensemble):
    def score_tensors(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (N,) float32, differentiable in ``pixels`` (N, 3, H, W) in [0, 1]."""
        parts = [m.part(m.reward.score_tensors(pixels, prompts)) for m in self.members]  # type: ignore[attr-defined]
        return torch.stack(parts).sum(dim=0)


def _kinds(infos: Sequence[RewardInfo]) -> list[MediaKind]:
    """Return the kinds of items that all of these score."""
    return [kind for kind in (infos[0].media, *infos[0].also) if all(info.takes(kind) for info in infos)]


def _check(members: Sequence[Member]) -> None:
    if not members:
        raise ConfigError("reward 'ensemble': members: name at least one reward")
    names = [member.name for member in members]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"reward 'ensemble': member '{twice[0]}' is named twice; members are told apart by name")
    if not _kinds([member.reward.info for member in members]):
        told = ", ".join(f"{member.name} {member.reward.info.media}" for member in members)
        raise ConfigError(f"reward 'ensemble': members must score the same kind of media, got {told}")
    if shares := [member.name for member in members if not member.reward.info.itemwise]:
        raise ConfigError(f"reward 'ensemble': member '{shares[0]}' scores an item by what is asked together with it")
    if not any(member.weight for member in members):
        raise ConfigError("reward 'ensemble': no member has a weight above 0")


@registry.register("ensemble")
def load_ensemble(
    path: str | None = None,
    *,
    members: list[Any] | None = None,
    mode: MODES = "weighted_sum",
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
) -> Reward:
    """Load an ensemble.

    Args:
        path: a YAML file with ``members``, in place of that option.
        members: rewards as recipes name them, ``pickscore`` or ``{pickscore: {path: PATH, weight: 2.0}}``; besides the
            options of each: ``weight`` (1), and ``mean`` and ``std`` of its scores, which bring members to one unit.
        mode: ``"weighted_sum"``; the others look at all candidates of a prompt and are ``data.combine`` of a recipe.
        device: where members run, unless they say otherwise.
        precision: of members that have that option and do not say otherwise.
        micro_batch: the same.

    Raises:
        ConfigError: members that are missing, unknown, named twice or of different media; another mode; a folder.
        ModelError: a member's path holds no such model.
    """
    if mode != "weighted_sum":
        raise ConfigError(
            f"reward 'ensemble': mode {mode} looks at all candidates of a prompt and gives an item no score of its own;"
            f" store the members' scores and set data.score: [NAME, NAME] and data.combine: {mode}"
        )
    if (path is None) == (members is None):
        raise ConfigError("reward 'ensemble': give either members or the path of a YAML file that holds them")
    if path is not None:
        if Path(path).is_dir():
            raise ConfigError(
                f"reward 'ensemble': {path} is a folder; expected a YAML file with members, or in its place"
                " {ensemble: {members: [NAME, {NAME: {path: PATH}}]}}"
            )
        content = load_yaml(path)
        if set(content) != {"members"} or not isinstance(content["members"], list):
            raise ConfigError(f"{path}: expected one key, members, with a list of rewards; got {', '.join(content)}")
        members = content["members"]
    shared = {"device": device, "precision": precision, "micro_batch": micro_batch}
    loaded = [_load_member(value, f"reward 'ensemble': members[{i}]", shared) for i, value in enumerate(members or [])]
    differentiable = all(member.reward.info.differentiable for member in loaded)
    return (_Differentiable if differentiable else Ensemble)(loaded)


def _load_member(value: Any, where: str, shared: Mapping[str, Any]) -> Member:
    named, place = _read_member(value, where)
    if not isinstance(named.options.get("path", ""), str):
        raise ConfigError(f"{where}: path must be text, got {named.options['path']!r}")
    inner = inner_reward("ensemble", {named.name: named.options}, shared)
    return Member(named.name, inner, place.weight, place.mean, place.std)


def _read_member(value: Any, where: str) -> tuple[Named, _Place]:
    """Return the reward's own name and options, and what the ensemble reads."""
    try:
        named = Named.model_validate(value)
        own = {name: named.options[name] for name in _Place.model_fields if name in named.options}
        place = _Place.model_validate(own)
    except ValidationError as error:
        raise config_error(error, _Place, where) from None
    rest = {name: given for name, given in named.options.items() if name not in own}
    return Named(name=named.name, options=rest), place


def fit_members(members: Sequence[Any], scores: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return members with the mean and standard deviation of scores, so that none outweighs another by its unit.

    Args:
        members: as `load_ensemble` takes them; what they state is replaced.
        scores: member -> its scores of a sample, such as those of a store; NaN and infinite ones do not count.

    Raises:
        ConfigError: a member without two different finite scores.

    >>> fit_members(["jpeg"], {"jpeg": [1.0, 3.0]})
    [{'jpeg': {'mean': 2.0, 'std': 1.0}}]
    """
    fitted = []
    for number, value in enumerate(members):
        named, place = _read_member(value, f"reward 'ensemble': members[{number}]")
        finite = [score for score in scores.get(named.name, ()) if math.isfinite(score)]
        if len(set(finite)) < 2:
            raise ConfigError(
                f"reward 'ensemble': member '{named.name}' has {len(set(finite))} different finite scores"
            )
        mean = math.fsum(finite) / len(finite)
        std = math.sqrt(math.fsum((score - mean) ** 2 for score in finite) / len(finite))
        weight = {} if place.weight == 1.0 else {"weight": place.weight}
        fitted.append({named.name: {**named.options, **weight, "mean": mean, "std": std}})
    return fitted
