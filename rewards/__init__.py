"""Scorers: ``load(name, path)`` returns a reward whose ``score(media, prompts)`` is higher for what is better.

A new reward is one file here that registers a factory ``(path, **options) -> Reward`` under the file's name. The losses
that train preference reward models are here too: `pickscore_loss`, `hps_pair_loss`, `hps_list_loss`,
`hps_ranking_loss`, `bradley_terry_loss`, `rao_kupper_loss` and `gaussian_pair_loss`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if __name__ != "diffpref.rewards":
    raise ImportError(
        f"imported as '{__name__}', a second copy beside the installed one; write: from diffpref import rewards"
    )

from diffpref.core.contracts import Reward, RewardInfo
from diffpref.core.errors import ConfigError, suggest
from diffpref.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from diffpref.rewards._calibrated import calibrated
    from diffpref.rewards._losses import (
        bradley_terry_loss,
        gaussian_pair_loss,
        hps_list_loss,
        hps_pair_loss,
        hps_ranking_loss,
        pickscore_loss,
        rao_kupper_loss,
    )
    from diffpref.rewards._named import check_named, load_named
    from diffpref.rewards._score_cache import cached

registry: Registry[Callable[..., Reward]] = Registry("reward", "diffpref.rewards", lazy=True)

SHORT_FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip_score": ("clip", {"output": "clip_score"}),
    "hps": ("hps_v21", {}),
}
"""Names that stand for a reward, with options."""

HPS_VERSIONS = {"v2": "hps_v2", "v2.1": "hps_v21"}
"""What the option ``version`` of the name ``hps`` may be."""

_PLACES = {
    "bradley_terry_loss": "_losses",
    "cached": "_score_cache",
    "calibrated": "_calibrated",
    "check_named": "_named",
    "gaussian_pair_loss": "_losses",
    "hps_list_loss": "_losses",
    "hps_pair_loss": "_losses",
    "hps_ranking_loss": "_losses",
    "load_named": "_named",
    "pickscore_loss": "_losses",
    "rao_kupper_loss": "_losses",
}
"""What is imported on use, and where it lies."""

__all__ = [
    "SHORT_FORMS",
    "Reward",
    "RewardInfo",
    "bradley_terry_loss",
    "cached",
    "calibrated",
    "check_named",
    "gaussian_pair_loss",
    "hps_list_loss",
    "hps_pair_loss",
    "hps_ranking_loss",
    "load",
    "load_named",
    "names",
    "pickscore_loss",
    "preference_probability",
    "rao_kupper_loss",
    "registry",
    "takes",
]


def names() -> list[str]:
    """Return the name of every reward; `SHORT_FORMS` has other names for some of them."""
    return registry.names()


def load(name: str, path: str | None = None, **options: Any) -> Reward:
    """Return a reward that is ready to score.

    Args:
        name: of `registry`, or one of `SHORT_FORMS`.
        path: hub id, folder, or ``bundled:shapes-<name>``, for rewards that have weights.
        options: of this reward, such as ``output="cosine"``; its factory's keyword arguments. Every reward also takes
            ``calibration``: a file of ``diffpref reward calibrate``, see `calibrated`.

    Raises:
        ConfigError: unknown name or option, an option of the wrong type, or a path that is missing or not wanted.
        ModelError: the path holds no model that can be loaded safely.
    """
    from diffpref.rewards._options import validated

    if name == "hps" and "version" in options:
        version = options.pop("version")
        if not isinstance(version, str) or version not in HPS_VERSIONS:
            raise ConfigError(f"reward 'hps': version must be one of {', '.join(HPS_VERSIONS)}, got {version!r}")
        name = HPS_VERSIONS[version]
    if name in SHORT_FORMS:
        name, defaults = SHORT_FORMS[name]
        options = {**defaults, **options}
    elif name not in registry and suggest(name, SHORT_FORMS):
        raise ConfigError(f"unknown reward '{name}'{suggest(name, [*registry, *SHORT_FORMS])}")
    calibration = options.pop("calibration", None)
    factory = registry.get(name)
    reward = factory(path, **validated(f"reward '{name}'", factory, options, also=("calibration",)))
    if calibration is None:
        return reward
    from diffpref.rewards._calibrated import calibrated

    return calibrated(reward, calibration)


def takes(name: str, option: str) -> bool:
    """Return whether a reward has an option, such as ``device``; False for a name that is no reward's."""
    canonical = SHORT_FORMS.get(name, (name,))[0]
    return canonical in registry and option in inspect.signature(registry.get(canonical)).parameters


def preference_probability(info: RewardInfo, first: Tensor, second: Tensor) -> Tensor:
    """Return P(first is better than second) for scores of one reward: sigmoid(pair_scale * (first - second)).

    Args:
        info: the reward's; its ``pair_scale`` must be defined.
        first: (N,) scores.
        second: (N,) scores.

    Raises:
        ConfigError: the reward defines no probability.
    """
    import torch

    if info.pair_scale is None:
        raise ConfigError(f"reward '{info.name}' ({info.version}) defines no probability of one item over another")
    return torch.sigmoid(info.pair_scale * (first - second))


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"diffpref.rewards.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'diffpref.rewards' has no attribute '{name}'")
