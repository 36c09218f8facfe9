"""Advantages of samples relative to the others of their prompt, as in GRPO and DDPO."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

from diffpref.core.errors import ShapeError

__all__ = ["aggregated_advantages", "buffered_advantages", "group_advantages"]


def group_advantages(
    rewards: Sequence[float], prompts: Sequence[Hashable], *, global_std: bool = True, epsilon: float = 1e-4
) -> list[float]:
    """Return each reward minus its prompt's mean, over a standard deviation (Flow-GRPO, arXiv:2505.05470).

    Args:
        rewards: of all samples, those of all processes.
        prompts: of each sample.
        global_std: divide by the deviation of all rewards, the code's default, or of the prompt's own.
        epsilon: added to the deviation, which is that of a population.

    Raises:
        ShapeError: not as many prompts as rewards.

    >>> [round(value, 3) for value in group_advantages([1.0, 0.0, 0.5, 0.7], "aabb")]
    [1.373, -1.373, -0.275, 0.275]
    """
    groups = _groups(rewards, prompts)
    whole = _deviation(rewards)
    result = []
    for reward, prompt in zip(rewards, prompts, strict=True):
        group = groups[prompt]
        result.append((reward - _mean(group)) / ((whole if global_std else _deviation(group)) + epsilon))
    return result


def aggregated_advantages(
    rewards: Sequence[Sequence[float]],
    prompts: Sequence[Hashable],
    *,
    weights: Sequence[float] | None = None,
    epsilon: float = 1e-8,
) -> list[float]:
    """Return the weighted sum of each reward's own advantages within a prompt (MixGRPO, arXiv:2507.21802).

    Args:
        rewards: a row a reward model, a column a sample.
        prompts: of each sample.
        weights: of the reward models; 1 each where not given.
        epsilon: added to a prompt's standard deviation, which is that of a sample (divided by n - 1).

    Raises:
        ShapeError: not as many prompts as rewards, or weights as reward models.

    >>> [round(value, 3) for value in aggregated_advantages([[1.0, 0.0], [0.0, 3.0]], "aa", weights=[1.0, 0.5])]
    [0.354, -0.354]
    """
    weights = [1.0] * len(rewards) if weights is None else weights
    if len(weights) != len(rewards):
        raise ShapeError(f"aggregated advantages: {len(rewards)} reward models have {len(weights)} weights")
    result = [0.0] * len(prompts)
    for weight, row in zip(weights, rewards, strict=True):
        groups = _groups(row, prompts)
        for number, (reward, prompt) in enumerate(zip(row, prompts, strict=True)):
            group = groups[prompt]
            deviation = _deviation(group) * math.sqrt(len(group) / max(len(group) - 1, 1))
            result[number] += weight * (reward - _mean(group)) / (deviation + epsilon)
    return result


def buffered_advantages(
    rewards: Sequence[float],
    prompts: Sequence[Hashable],
    buffers: Mapping[Hashable, Sequence[float]],
    *,
    size: int = 32,
    min_count: int = 16,
    epsilon: float = 1e-6,
) -> tuple[list[float], dict[Hashable, list[float]]]:
    """Return advantages relative to the last rewards of each prompt, and the buffers after them (DDPO).

    A prompt seen fewer than ``min_count`` times so far is compared with this batch.

    Args:
        rewards: of all samples, those of all processes.
        prompts: of each sample.
        buffers: the last rewards of each prompt before this batch, oldest first.
        size: of a buffer: 16, or 32 for the aesthetic score.
        min_count: rewards from which on a buffer is used.
        epsilon: added to the standard deviation, which is that of a population.

    Raises:
        ShapeError: not as many prompts as rewards.

    Source: Black et al., DDPO, arXiv:2305.13301; kvablack/ddpo-pytorch ``stat_tracking.py``.

    >>> buffered_advantages([1.0, 3.0], ["a", "b"], {"a": [0.0, 2.0]}, min_count=3, epsilon=0.0)[0]
    [0.0, 1.0]
    """
    groups = _groups(rewards, prompts)
    after = {prompt: list(values) for prompt, values in buffers.items()}
    for prompt, values in groups.items():
        after[prompt] = [*after.get(prompt, ()), *values][-size:]
    result = []
    for reward, prompt in zip(rewards, prompts, strict=True):
        compared = after[prompt] if len(after[prompt]) >= min_count else rewards
        result.append((reward - _mean(compared)) / (_deviation(compared) + epsilon))
    return result, after


def _groups(rewards: Sequence[float], prompts: Sequence[Hashable]) -> dict[Hashable, list[float]]:
    if len(rewards) != len(prompts):
        raise ShapeError(f"advantages: {len(rewards)} rewards have {len(prompts)} prompts; give one prompt a reward")
    groups: dict[Hashable, list[float]] = {}
    for reward, prompt in zip(rewards, prompts, strict=True):
        groups.setdefault(prompt, []).append(reward)
    return groups


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
