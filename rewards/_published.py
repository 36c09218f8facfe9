"""Checkpoints as their authors publish them: which files of which repository, and what to say when one is missing."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from diffpref.core.errors import ConfigError, ModelError
from diffpref.rewards._weights import first_line

__all__ = ["Published"]


@dataclass(frozen=True)
class Published:
    """What a reward reads.

    Args:
        reward: registry name.
        repository: hub id, or the address of the page that offers the files.
        files: names or patterns (``*.safetensors``), below the repository; each must be there. In place of a pickle
            (``.pt``) the same tensors under the same name as ``.safetensors`` will do.
        licence: of the weights.
        on_hub: whether ``repository`` is a hub id, from which the files can be fetched.
        also: names or patterns of what is fetched with them where it is there.
    """

    reward: str
    repository: str
    files: tuple[str, ...]
    licence: str
    on_hub: bool = True
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{', '.join(self.files)} of {self.repository} (licence: {self.licence})"

    def find(self, path: str | None) -> Path:
        """Return the folder that holds the files: ``path`` itself, or what the hub has under that name.

        Args:
            path: a folder, or a hub id with files of the same names; of one file alone, its own path will do: then
                the file is returned.

        Raises:
            ConfigError: no path.
            ModelError: a file is missing there; the message names it, the repository and the licence.
        """
        if path is None:
            choices = f"the hub id '{self.repository}' or a folder" if self.on_hub else "a folder"
            raise ConfigError(f"reward '{self.reward}' needs a path: {choices} with {self}")
        found = Path(path).expanduser()
        if found.is_file() and len(self.files) == 1:
            return found
        if not found.exists():
            if not self.on_hub or path.startswith((".", "/", "~")) or path.count("/") != 1:
                raise ModelError(f"{path}: no such folder; reward '{self.reward}' reads {self}")
            found = self._fetch(path)
        for pattern in self.files:
            if not self._named(found, pattern):
                raise ModelError(f"{path}: no file {pattern}; reward '{self.reward}' reads {self}")
        return found

    def file(self, folder: Path, pattern: str) -> Path:
        """Return one of the files of a folder that was found; of a pickle its twin in safetensors, if there is one."""
        return self._named(folder, pattern)[0]

    @staticmethod
    def _named(folder: Path, pattern: str) -> list[Path]:
        wanted = (str(Path(pattern).with_suffix(".safetensors")), pattern)
        present = [str(file.relative_to(folder)) for file in sorted(folder.rglob("*"))]
        return [folder / name for one in wanted for name in present if fnmatch(name, one)]

    def _fetch(self, hub_id: str) -> Path:
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(hub_id, allow_patterns=[*self.files, *self.also]))
        except (OSError, ValueError) as error:
            reason = first_line(error)
            raise ModelError(
                f"{hub_id}: could not be fetched ({reason}); reward '{self.reward}' reads {self}"
            ) from error
