"""Sounds at another rate, by windowed-sinc interpolation, in numpy alone."""

from __future__ import annotations

from math import ceil, gcd

import numpy as np

__all__ = ["resample"]

ZEROS = 64
"""Zero crossings of the sinc on each side."""
BETA = 14.77
"""Of the Kaiser window: what is cut off is below -100 dB."""
ROLL_OFF = 0.9475
"""Share of the lower rate's half at which the filter is half way down."""


def _weights(place: np.ndarray, cutoff: float) -> np.ndarray:
    """Return what old samples count for a new one.

    Args:
        place: of the old samples, seen from the new one, in old samples.
        cutoff: share of the old rate's half that passes.
    """
    inside = 1 - (place * cutoff / ZEROS) ** 2
    window = np.where(inside > 0, np.i0(BETA * np.sqrt(inside.clip(min=0))), 0.0)
    weights = np.sinc(place * cutoff) * window
    total: np.ndarray = weights / weights.sum()
    return total


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Return a sound at another rate; what the lower of both rates cannot hold is filtered out.

    Each new sample is the Kaiser-windowed sinc interpolation of the old ones around its place in time. Its weights sum
    to 1, so that constants stay exact, and depend on the place between two old samples alone: with rates of a common
    divisor there are few such places. The length is ``ceil(T * target / rate)``; before the beginning and after the
    end there is silence.

    Args:
        samples: (T,) floats.
        rate: of the samples, a second.
        target: of the result, a second.

    Returns:
        (T',) float32; the very samples where both rates are equal.

    Source: J. O. Smith, Digital Audio Resampling, 2002 (https://ccrma.stanford.edu/~jos/resample/).
    """
    values = np.asarray(samples, dtype=np.float64)
    if rate == target:
        return values.astype(np.float32)
    cutoff = ROLL_OFF * min(1.0, target / rate)
    reach = ceil(ZEROS / cutoff)
    around = np.arange(-reach, reach + 2)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, (reach, 2 * reach + 2)), len(around))
    result = np.empty(-(-len(values) * target // rate), dtype=np.float32)
    places = target // gcd(rate, target)
    for first in range(min(places, len(result))):
        numbers = np.arange(first, len(result), places, dtype=np.int64)
        rest = first * rate % target / target
        result[first::places] = windows[numbers * rate // target] @ _weights(around - rest, cutoff)
    return result
