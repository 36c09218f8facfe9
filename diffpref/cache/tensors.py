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
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
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
        """Return an entry's tensors by name."""
        reader = self._open[self._shard_of[key]]
        return {name: reader.get_tensor(f"{key}/{name}") for name in self._names[key]}

    def add(self, entries: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write entries as one new shard."""
        from safetensors.torch import save_file

        flat = {f"{key}/{name}": t.detach().cpu().contiguous() for key, e in entries.items() for name, t in e.items()}
        target = self.folder / f"shard-{hash_key(*sorted(entries)):016x}"
        with publish_folder(target, replace=True) as folder:
            save_file(flat, folder / "tensors.safetensors")
        self._index(target / "tensors.safetensors")
