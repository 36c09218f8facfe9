"""A folder of tensors found by key; a key says everything that decides the content, so nothing in it is ever stale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from diffpref.core.errors import DataError
from diffpref.core.files import publish_folder
from diffpref.core.randomness import hash_key

__all__ = ["TensorCache"]


class TensorCache:
    """Entries of named tensors, written in shards that are complete or absent.

    Args:
        folder: made when the first shard is written. Shards of an interrupted run are used by the next.
        memory: bytes of the entries read last that stay in memory.
    """

    def __init__(self, folder: Path, memory: int = 256 * 2**20) -> None:
        self.folder, self.memory = Path(folder), memory
        self._recent: dict[str, dict[str, Tensor]] = {}
        self._held = 0
        self._names: dict[str, list[str]] = {}
        self._shard_of: dict[str, Path] = {}
        self._open: dict[Path, safe_open] = {}
        for shard in sorted(self.folder.glob("shard-*/tensors.safetensors")):
            self._index(shard)

    def _index(self, shard: Path) -> None:
        try:
            reader = safe_open(shard, framework="pt")
        except (OSError, SafetensorError) as error:
            raise DataError(f"{shard}: damaged cache shard ({error}); delete its folder to encode it again") from error
        self._open[shard] = reader
        self._recent, self._held = {}, 0  # what is written again is read again
        entries: dict[str, list[str]] = {}
        for name in reader.keys():  # not a dict
            key, _, part = name.partition("/")
            entries.setdefault(key, []).append(part)
        self._names.update(entries)
        self._shard_of.update(dict.fromkeys(entries, shard))

    def __contains__(self, key: str) -> bool:
        return key in self._shard_of

    def __len__(self) -> int:
        return len(self._shard_of)

    def get(self, key: str) -> dict[str, Tensor]:
        """Return an entry's tensors by name. They are shared by all who ask, and not to be changed."""
        entry = self._recent.pop(key, None)
        if entry is None:
            reader = self._open[self._shard_of[key]]
            entry = {name: reader.get_tensor(f"{key}/{name}") for name in self._names[key]}
            self._held += _size(entry)
        self._recent[key] = entry  # now the youngest
        while self._held > self.memory and len(self._recent) > 1:
            self._held -= _size(self._recent.pop(next(iter(self._recent))))
        return entry

    def add(self, entries: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write entries as one new shard."""
        from safetensors.torch import save_file

        flat = {f"{key}/{name}": t.detach().cpu().contiguous() for key, e in entries.items() for name, t in e.items()}
        target = self.folder / f"shard-{hash_key(*sorted(entries)):016x}"
        with publish_folder(target, replace=True) as folder:
            save_file(flat, folder / "tensors.safetensors")
        self._index(target / "tensors.safetensors")


def _size(entry: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in entry.values())
