"""A reward whose gaps mean probabilities as they were measured on labelled pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from diffpref.core.contracts import Reward, RewardInfo
from diffpref.core.errors import ConfigError
from diffpref.ranking import Calibration
from diffpref.rewards._wrapper import Wrapper, wrap

__all__ = ["CalibratedReward", "calibrated"]


class CalibratedReward(Wrapper):
    """A reward with another ``pair_scale``; its scores are as they were. Made by `calibrated`.

    Args:
        inner: the reward inside.
        calibration: of its scores.
    """

    def __init__(self, inner: Reward, calibration: Calibration) -> None:
        super().__init__(inner)
        self.calibration = calibration

    @property
    def info(self) -> RewardInfo:
        """What the inner reward says of itself, with the measured ``pair_scale``."""
        return replace(super().info, pair_scale=self.calibration.scale)


def calibrated(reward: Reward, calibration: Calibration | Path | str) -> CalibratedReward:
    """Return a reward whose ``pair_scale`` is that of a calibration, so that it can be asked as a judge of pairs.

    Args:
        reward: whose scores were calibrated.
        calibration: or the file of one, as ``diffpref reward calibrate`` writes it. Of one with ties as an outcome of
            their own, the scale is that of pairs that are no ties.

    Raises:
        ConfigError: the calibration is of another version of the reward: its gaps may mean something else.
        DataError: there is no such file, or it is no calibration.
    """
    found = calibration if isinstance(calibration, Calibration) else Calibration.load(calibration)
    if found.version != reward.info.version:
        own = f"{reward.info.name}@{reward.info.version}"
        raise ConfigError(f"the calibration is of {found.score}@{found.version}, and this is {own}; calibrate this one")
    return wrap(CalibratedReward, reward, found)
