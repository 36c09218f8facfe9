"""What is watched over a whole run: good pictures unlearnt, and a beta in the wrong units."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffpref.config import Guards, Recipe
from diffpref.core.errors import ConfigError
from diffpref.likelihood.beta_units import convert_beta
from diffpref.likelihood.weighting import NoiseSchedule
from diffpref.training.plan import Plan

__all__ = ["FIRST_UPDATES", "SATURATED", "TINY", "Alarms", "LogitCheck", "WinnerAlarm"]

logger = logging.getLogger(__name__)

FIRST_UPDATES = 20
TINY, SATURATED = 1e-4, 20.0
"""Mean magnitudes of a logit that a sensible run stays between in its first updates; sigmoid(20) is 1 - 2e-9."""


class WinnerAlarm:
    """Watches whether the policy denoises the chosen samples worse than the reference does.

    A preference loss is content with a chosen error that rises as long as the rejected one rises more; a model that
    goes on so unlearns good and bad alike. The rise, ``errors/chosen_vs_reference`` over the reference's error, is
    averaged exponentially over ``winner_window`` updates and looked at once a window.

    Args:
        settings: what is too much, how often in a row, and what follows.
    """

    def __init__(self, settings: Guards) -> None:
        self.settings = settings
        self.rise = 0.0
        self.level = 0.0
        self.count = 0
        self.above = 0
        self.fired = False
        self.good: int | None = None

    def state(self, good: int | None = None) -> dict[str, Any]:
        """Return what a checkpoint keeps; ``good`` as it will be once the checkpoint is saved."""
        names = ("rise", "level", "count", "above", "fired", "good")
        return {name: getattr(self, name) for name in names} | ({} if good is None else {"good": good})

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` returned."""
        for name, value in state.items():
            setattr(self, name, value)

    @property
    def relative(self) -> float:
        """How much worse than the reference the policy is on the chosen, as a share of the reference's error."""
        return self.rise / self.level if self.level > 0 else 0.0

    @property
    def ended(self) -> bool:
        """Whether the run is to end."""
        return self.fired and self.settings.winner_error in ("stop", "roll_back")

    def good_after(self, step: int) -> int | None:
        """Return where a roll-back would go once a checkpoint of this step is saved: there, if nothing is wrong."""
        return step if self.relative <= self.settings.winner_epsilon and not self.fired else self.good

    def spare(self, good: int | None) -> int | None:
        """Return the step of the checkpoint that must stay, because a roll-back would go there."""
        return good if self.settings.winner_error == "roll_back" else None

    def __call__(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Look at the metrics of an update; return what the log says."""
        own, rise = metrics.get("errors/chosen"), metrics.get("errors/chosen_vs_reference")
        settings = self.settings
        if own is None or rise is None or settings.winner_error == "off":
            return {}
        self.count += 1
        weight = 1 / min(self.count, settings.winner_window)  # a plain mean at first, so that no start value lingers
        self.rise += weight * (rise - self.rise)
        self.level += weight * (own - rise - self.level)
        said = {"guards/winner_error": self.relative}
        if self.count % settings.winner_window:
            return said
        self.above = self.above + 1 if self.relative > settings.winner_epsilon else 0
        if not self.above:
            self.fired = False
        if self.above < settings.winner_patience or self.fired:
            return said
        self.fired = True
        return {**said, "guards/winner_alarm": 1.0, **self._tell(step)}

    def _tell(self, step: int) -> dict[str, float]:
        what, good = self.settings.winner_error, self.good
        then = {
            "warn": "lower optim.learning_rate, raise beta, or add an nll term",
            "stop": "the run ends here",
            "roll_back": "no checkpoint is from before, so the run ends here"
            if good is None
            else f"the run ends with the weights of update {good}",
        }[what]
        logger.warning(
            "update %d: the policy denoises the chosen samples %.1f %% worse than the reference does (mean of %d"
            " updates, limit %g %%, %d times in a row): good pictures are being unlearnt; %s",
            step,
            100 * self.relative,
            self.settings.winner_window,
            100 * self.settings.winner_epsilon,
            self.above,
            then,
        )
        return {"guards/rolled_back_to": float(good)} if what == "roll_back" and good is not None else {}


@dataclass
class LogitCheck:
    """Warns once, in the first updates of a run, when the logits say that beta is not in the likelihood's units.

    Args:
        beta: of the pairwise objective; None where there is none, and nothing is checked.
        weighting: of the likelihood.
        num_elements: counts those of a latent; asked only when something is to be said.
        schedule: of the checkpoint; None for models that do not denoise.
    """

    beta: float | None
    weighting: str
    num_elements: Callable[[], int]
    schedule: NoiseSchedule | None
    largest: float = 0.0
    told: bool = False

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"largest": self.largest, "told": self.told}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` returned."""
        self.largest, self.told = state["largest"], state["told"]

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at the logit scale after update ``step`` (from 1)."""
        scale = metrics.get("logits/scale")
        if self.beta is None or scale is None or self.told or step > FIRST_UPDATES:
            return
        self.largest = max(self.largest, scale)
        if scale > SATURATED or (step == FIRST_UPDATES and self.largest < TINY):
            self.told = True
            logger.warning("update %d: %s", step, self._advice(scale))

    def _advice(self, scale: float) -> str:
        if scale > SATURATED:
            head = f"logits are saturated (mean magnitude {scale:.3g}): the loss has no gradient left."
            if self.weighting == "elbo" and self.schedule is not None:
                other = self._converted("official", "nats")
                return (
                    f"{head} beta {self.beta:g} looks like the unit of mean squared errors, but likelihood.weighting:"
                    f" elbo gives nats{f'; there it would be {other:.3g}' if other else ''}. See docs/beta.md"
                )
            return f"{head} Lower beta (now {self.beta:g}) or optim.learning_rate. See docs/beta.md"
        head = (
            f"logits are tiny (at most {self.largest:.3g} in {FIRST_UPDATES} updates): the loss cannot leave its start."
        )
        if self.weighting == "elbo" or self.schedule is None:
            return f"{head} Raise optim.learning_rate, or beta (now {self.beta:g}). See docs/beta.md"
        other = self._converted("nats", "official")
        same = f" ({self.beta:g} nats would be {other:.3g})" if other else ""
        return (
            f"{head} beta {self.beta:g} looks like nats, as for text; here log-ratios are differences of mean squared"
            f" errors, for which 2000 to 5000 are published{same}."
            " If beta is meant, raise optim.learning_rate or shorten its warm-up. See docs/beta.md"
        )

    def _converted(self, source: Any, target: Any) -> float | None:
        if self.schedule is None:
            return None
        try:
            return convert_beta(
                self.beta or 0.0, source=source, target=target, num_elements=self.num_elements(), schedule=self.schedule
            )
        except ConfigError:  # a schedule on which the mean is infinite
            return None


class Alarms:
    """All that watches a run.

    Args:
        recipe: of the run.
        plan: its objectives.
        schedule: of the checkpoint.
        num_elements: counts those of a latent.
    """

    def __init__(
        self, recipe: Recipe, plan: Plan, schedule: NoiseSchedule | None, num_elements: Callable[[], int]
    ) -> None:
        self.winner = WinnerAlarm(recipe.guards)
        self.logits = LogitCheck(plan.composition.pair_beta, recipe.likelihood.weighting, num_elements, schedule)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Look at the metrics of update ``step`` (from 1); return what the log says besides."""
        self.logits(step, metrics)
        return self.winner(step, metrics)

    def state(self, good: int | None = None) -> dict[str, Any]:
        """Return what a checkpoint keeps; ``good`` is where a roll-back goes once it is saved."""
        return {"winner": self.winner.state(good), "logits": self.logits.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` returned; of a run without alarms there is none."""
        if state:
            self.winner.load_state(state["winner"])
            self.logits.load_state(state["logits"])
