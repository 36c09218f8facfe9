"""The oracle of the moving shapes: reads a clip and tells which facts of a caption hold.

Each frame is read as a picture (`diffpref.shapes.oracle.look`); the path of the object gives direction and speed. Plain
geometry: no method is ever trained on it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from diffpref.shapes.motion import DIRECTIONS, NUM_FRAMES, SPEEDS, MovingCaption
from diffpref.shapes.oracle import Seen, look

__all__ = ["MOTION_FACTS", "Motion", "motion_facts", "num_motion_facts_right", "watch"]

MOTION_FACTS = ("one_object", "colour", "shape", "direction", "speed")
STRAIGHT = 2.0  # how much longer the way along the main axis is than across, at least
RESTING = 2.0  # pixels over a clip of `NUM_FRAMES`, of others in proportion; less is no motion
QUICK = 9.0  # likewise; between the slowest quick and the quickest slow clip


@dataclass(frozen=True)
class Motion:
    """What a clip shows.

    Args:
        colour: that most frames show; None where nothing known fits most of them.
        shape: likewise.
        direction: of `DIRECTIONS`; None where the object rests or goes astray.
        speed: of `SPEEDS`; None where it rests.
        single: share of the frames that show exactly one object, 0..1.
        distance: pixels from the first to the last place.
        dynamic_degree: mean distance between the places of neighbouring frames, pixels a frame.
        flicker: mean absolute change of colour between neighbouring frames, of background and object, which motion
            does not explain, 0..255.
    """

    colour: str | None
    shape: str | None
    direction: str | None
    speed: str | None
    single: float
    distance: float
    dynamic_degree: float
    flicker: float


def _most(words: list[str | None]) -> str | None:
    """Return the word that more than half of the frames have."""
    word, count = Counter(words).most_common(1)[0]
    return word if 2 * count > len(words) else None


def _flicker(clip: np.ndarray, largest: list[Seen | None]) -> float:
    """Return the mean change, from frame to frame, of the background's colour and of that at the object's centre."""
    frames = clip.astype(np.float64)
    border = np.concatenate([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], axis=1)
    colours = [np.median(border, axis=1)]  # (F, 3)
    if all(largest):
        colours.append(np.array([f[int(s.y), int(s.x)] for f, s in zip(frames, largest, strict=True) if s]))
    return float(np.mean([np.abs(np.diff(colour, axis=0)).mean() for colour in colours]))


def watch(clip: np.ndarray) -> Motion:
    """Read a clip.

    Args:
        clip: (F, H, H, 3) uint8, at least two frames.
    """
    if clip.ndim != 4 or clip.shape[3] != 3 or clip.dtype != np.uint8 or len(clip) < 2:
        raise ValueError(f"expected a (F, H, W, 3) uint8 clip of at least two frames, got {clip.shape} {clip.dtype}")
    read = [look(frame) for frame in clip]
    largest = [objects[0] if objects else None for objects in read]
    places = np.array([(s.x, s.y) for s in largest if s is not None]).reshape(-1, 2)
    complete = len(places) == len(clip)
    way = places[-1] - places[0] if complete else np.zeros(2)
    distance = float(np.linalg.norm(way))
    across, along = sorted(np.abs(way))
    share = (len(clip) - 1) / (NUM_FRAMES - 1)
    moves = complete and distance >= share * RESTING
    straight = moves and along >= STRAIGHT * across
    nearest = max(DIRECTIONS, key=lambda name: float(np.dot(DIRECTIONS[name], way)))
    slow, quick = SPEEDS
    return Motion(
        colour=_most([s.colour if s else None for s in largest]),
        shape=_most([s.shape if s else None for s in largest]),
        direction=nearest if straight else None,
        speed=(quick if distance >= share * QUICK else slow) if moves else None,
        single=sum(len(objects) == 1 for objects in read) / len(clip),
        distance=distance,
        dynamic_degree=float(np.linalg.norm(np.diff(places, axis=0), axis=1).mean()) if len(places) > 1 else 0.0,
        flicker=_flicker(clip, largest),
    )


def motion_facts(clip: np.ndarray, caption: MovingCaption) -> dict[str, bool]:
    """Tell for each of `MOTION_FACTS` whether it holds. One frame in eight may show something else than one object."""
    seen = watch(clip)
    values = (
        seen.single >= 7 / 8,
        seen.colour == caption.thing.colour,
        seen.shape == caption.thing.shape,
        seen.direction == caption.direction,
        seen.speed == caption.speed,
    )
    return dict(zip(MOTION_FACTS, values, strict=True))


def num_motion_facts_right(clip: np.ndarray, caption: MovingCaption) -> int:
    """Return how many of the five facts hold."""
    return sum(motion_facts(clip, caption).values())
