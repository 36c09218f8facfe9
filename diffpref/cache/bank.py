"""The bank: what a role that stands still answered, a few numbers a row, found by the row's content.

A row's key is a digest of everything that is put before the model: noised latents, timestep, target, conditioning. What
decides a row (pictures, captions, their encoders, crops, dropout, noise, timesteps, the method's options) is therefore
part of its key without being listed. What answers it (weights, kernels, number formats ...) is the bank's fingerprint,
and another fingerprint is another folder. So nothing in it is ever stale, and methods that noise alike share it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from diffpref.core.contracts import Rows, Tensors
from diffpref.core.errors import DataError
from diffpref.core.files import write_atomic, write_json

__all__ = ["Bank", "Keys", "Numbers", "bank_folder", "row_keys"]

Keys: TypeAlias = NDArray[np.int64]
"""(N, 2): the two halves of a 128-bit digest a row."""
Numbers: TypeAlias = NDArray[np.float32]
"""(N, F): what was answered."""

FLUSH = 1024
"""Rows that are written at the latest, as long as the bank is small; then a sixteenth of it, so that files stay few."""


def row_keys(rows: Rows) -> Keys:
    """Return a 128-bit digest of each row of a question: (N, 2) int64. Padding of texts is no part of it."""
    if rows.likelihood == "tokens":
        return _token_digests(rows)
    tensors = {**{f"input {k}": t for k, t in rows.inputs.items()}, **rows.conditioning.tensors}
    kind = f"{rows.likelihood} {rows.guidance}"
    return _digests(kind, tensors)


def _token_digests(rows: Rows) -> Keys:
    ids, labels = rows.inputs["ids"].cpu(), rows.inputs["labels"].cpu()
    there = rows.conditioning.tensors["attention_mask"].cpu() > 0
    found = []
    for row in range(len(ids)):
        digest = xxhash.xxh3_128(b"tokens")
        for tensor in (ids, labels):
            digest.update(tensor[row][there[row]].numpy().tobytes())
        found.append(digest.digest())
    return np.frombuffer(b"".join(found), dtype=np.int64).reshape(-1, 2)


def _digests(kind: str, tensors: Tensors) -> Keys:
    named = sorted(tensors.items())
    head = kind + "".join(f" {name} {tensor.dtype} {tuple(tensor.shape[1:])}" for name, tensor in named)
    content = [tensor.detach().cpu().contiguous().flatten(1) for _, tensor in named if tensor.dim() > 1]
    content += [tensor.detach().cpu().contiguous().view(-1, 1) for _, tensor in named if tensor.dim() == 1]
    arrays = [tensor.view(torch.uint8).numpy() for tensor in content]
    found = []
    for row in range(len(arrays[0])):
        digest = xxhash.xxh3_128(head.encode())
        for array in arrays:
            digest.update(array[row].data)
        found.append(digest.digest())
    return np.frombuffer(b"".join(found), dtype=np.int64).reshape(-1, 2)


def bank_folder(folder: Path, fingerprint: Mapping[str, object]) -> Path:
    """Return where the bank of a fingerprint lies below the folder of all banks."""
    content = json.dumps(fingerprint, sort_keys=True)
    return Path(folder) / xxhash.xxh3_128_hexdigest(content.encode())


class Bank:
    """Numbers by row, in files that are complete or absent; killed anywhere it is a shorter bank.

    Several processes may fill one bank: each writes files of its own, named by their content. Files that others write
    after this was opened are seen the next time.

    Args:
        folder: of all banks.
        fingerprint: of what answers, as plain JSON; written beside the numbers, for people.
        width: F, numbers a row.

    Raises:
        DataError: a file is damaged.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, object], width: int = 1) -> None:
        self.folder, self.fingerprint, self.width = bank_folder(folder, fingerprint), dict(fingerprint), width
        self._keys: Keys = np.empty((0, 2), np.int64)
        self._numbers: Numbers = np.empty((0, width), np.float32)
        self._fresh: dict[tuple[int, int], Numbers] = {}  # not in the sorted arrays yet
        self._unsaved: list[tuple[int, int]] = []
        files = [_read(path, width) for path in sorted(self.folder.glob("[!.]*.safetensors"))]
        if files:
            self._merge(np.concatenate([keys for keys, _ in files]), np.concatenate([n for _, n in files]))

    def __len__(self) -> int:
        return len(self._keys) + len(self._fresh)

    def get(self, keys: Keys) -> tuple[Numbers, NDArray[np.bool_]]:
        """Return the numbers of rows, (N, F), and which were there, (N,); those of others are 0."""
        numbers, found = np.zeros((len(keys), self.width), np.float32), np.zeros(len(keys), np.bool_)
        starts = np.searchsorted(self._keys[:, 0], keys[:, 0])
        for row, (first, second) in enumerate(keys.tolist()):
            if (first, second) in self._fresh:
                numbers[row], found[row] = self._fresh[first, second], True
                continue
            at = int(starts[row])
            while at < len(self._keys) and self._keys[at, 0] == first and not found[row]:
                if self._keys[at, 1] == second:
                    numbers[row], found[row] = self._numbers[at], True
                at += 1
        return numbers, found

    def add(self, keys: Keys, numbers: Numbers, *, save: bool = True) -> None:
        """Keep the finite numbers of rows that are not there yet.

        Args:
            keys: (N, 2).
            numbers: (N, F).
            save: whether this process is to write them; False for what another one writes.
        """
        there = self.get(keys)[1]
        for key, number, known in zip(map(tuple, keys.tolist()), numbers, there, strict=True):
            if known or key in self._fresh or not np.isfinite(number).all():
                continue
            self._fresh[key] = number.copy()
            if save:
                self._unsaved.append(key)
        if len(self._fresh) >= max(FLUSH, len(self._keys) // 16):
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet, as one new file."""
        if self._unsaved:
            if not (self.folder / "fingerprint.json").exists():
                write_json(self.folder / "fingerprint.json", self.fingerprint)
            numbers = np.stack([self._fresh[key] for key in self._unsaved])
            keys = np.array(self._unsaved, np.int64)
            content = save({"keys": torch.from_numpy(keys), "numbers": torch.from_numpy(numbers)})
            write_atomic(self.folder / f"{xxhash.xxh3_128_hexdigest(content)}.safetensors", content)
            self._unsaved = []
        if self._fresh:
            self._merge(np.array(list(self._fresh), np.int64), np.stack(list(self._fresh.values())))
            self._fresh = {}

    def _merge(self, keys: Keys, numbers: Numbers) -> None:
        keys, numbers = np.concatenate([self._keys, keys]), np.concatenate([self._numbers, numbers])
        order = np.argsort(keys[:, 0], kind="stable")
        self._keys, self._numbers = keys[order], numbers[order]


def _read(path: Path, width: int) -> tuple[Keys, Numbers]:
    content = path.read_bytes()
    try:
        if xxhash.xxh3_128_hexdigest(content) != path.stem:
            raise ValueError("its content is not what its name says")
        tensors = load(content)
        keys, numbers = tensors["keys"].numpy(), tensors["numbers"].numpy()
        if numbers.shape != (len(keys), width):
            raise ValueError(f"it holds numbers of shape {numbers.shape}, expected ({len(keys)}, {width})")
    except (ValueError, KeyError, SafetensorError) as error:
        raise DataError(f"{path}: damaged file of a bank ({error}); delete it, its rows are computed again") from error
    return keys, numbers
