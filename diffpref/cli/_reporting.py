"""What the commands say: stages, a progress bar on a terminal, and the scores of a store."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffpref.generation import ScoreSummary
    from diffpref.generation.scoring import Progress

__all__ = ["is_main", "progress_bar", "score_lines", "scores_json", "tell_progress"]


def is_main() -> bool:
    """Whether this process speaks for all that a launcher has started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def progress_bar(unit: str) -> Iterator[Progress]:
    """Show a bar on standard error where that is a terminal; yields what is called with (done, total)."""
    from tqdm import tqdm

    with tqdm(unit=unit, disable=None if is_main() else True) as bar:

        def tell(done: int, total: int) -> None:
            if bar.total is None:
                bar.total, bar.initial = total, done
            bar.update(done - bar.n)

        yield tell


def scores_json(summaries: Sequence[ScoreSummary]) -> list[dict[str, Any]]:
    """Return the summaries as JSON-ready values; a mean of nothing is null."""
    return [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(one).items()}
        for one in summaries
    ]


def score_lines(summaries: Sequence[ScoreSummary]) -> list[str]:
    """Return a line for each score."""
    width = max((len(one.name) for one in summaries), default=0)
    return [
        f"  {one.name:{width}}  mean {one.mean:.4g}, std {one.std:.4g} over {one.count - one.not_finite:,} candidates"
        + (f"; {one.not_finite:,} scores are NaN or infinite" if one.not_finite else "")
        + f"  ({one.version})"
        for one in summaries
    ]


def tell_progress() -> None:
    """Show what diffpref's own loggers say of the stages of a run; of libraries only warnings."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("diffpref").setLevel(logging.INFO)
    logging.getLogger("diffusers.models.modeling_utils").setLevel(logging.CRITICAL)  # it says what our errors say
    logging.getLogger("diffusers.loaders").setLevel(logging.ERROR)  # a LoRA of the denoiser alone is no cause to warn
