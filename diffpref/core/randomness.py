"""Randomness as a function of keys, never of history (counter-based).

A draw belongs to a key ``(seed, stream, *parts)``, such as ``(seed, "noise", record, visit)``. Resuming, another batch
size or another number of processes therefore changes no draw. Keys are hashed with blake2b, which, unlike ``hash()``,
is the same in every process. Draws are made one sample at a time, in float32, on the CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy
    import torch

__all__ = ["Key", "Random", "hash_key"]

Key: TypeAlias = Sequence["int | str"]


def hash_key(*parts: int | str) -> int:
    """Return a 63-bit integer that depends on every part and on its type: ``1`` and ``"1"`` differ."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if not isinstance(part, int | str):
            raise TypeError(f"a key part must be an int or a str, got {type(part).__name__}")
        text = f"{type(part).__name__[0]}{part}".encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return int.from_bytes(digest.digest(), "little") >> 1


@dataclass(frozen=True)
class Random:
    """All the random numbers of a run.

    Args:
        seed: the run's seed. Two runs with equal seeds draw equal numbers for equal keys, whatever else differs.

    >>> a, b = Random(0), Random(0)
    >>> bool((a.normal("noise", [(7, 0)], (2,)) == b.normal("noise", [(3, 0), (7, 0)], (2,))[1:]).all())
    True
    """

    seed: int

    def generator(self, stream: str, *key: int | str) -> torch.Generator:
        """Return a fresh CPU generator for one key of a stream."""
        import torch

        return torch.Generator().manual_seed(hash_key(self.seed, stream, *key))

    def numpy(self, stream: str, *key: int | str) -> numpy.random.Generator:
        """Return a fresh numpy generator for one key of a stream."""
        import numpy

        return numpy.random.default_rng(hash_key(self.seed, stream, *key))

    def normal(self, stream: str, keys: Sequence[Key], shape: Sequence[int]) -> torch.Tensor:
        """Return (N, …) standard normal float32 numbers, one row of ``shape`` a key."""
        import torch

        return torch.stack([torch.randn(tuple(shape), generator=self.generator(stream, *key)) for key in keys])

    def uniform(self, stream: str, keys: Sequence[Key]) -> torch.Tensor:
        """Return (N,) float64 numbers in [0, 1), one a key."""
        import torch

        draws = [torch.rand((), dtype=torch.float64, generator=self.generator(stream, *key)) for key in keys]
        return torch.stack(draws)

    def permutation(self, size: int, stream: str, *key: int | str) -> torch.Tensor:
        """Return a permutation of ``range(size)``, int64, for one key."""
        import torch

        return torch.randperm(size, generator=self.generator(stream, *key))
