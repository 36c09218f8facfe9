"""Checkpoints as their authors publish them: which files of which repository, where a user keeps them, what is missing.

The one place that says what the ``path`` of a reward with weights means: a folder or file, a hub id, a bundled model.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from diffpref.core.assets import PREFIX, resolve
from diffpref.core.errors import ConfigError, ModelError
from diffpref.rewards._weights import PICKLED, first_line

__all__ = ["Published"]


@dataclass(frozen=True)
class Published:
    """What a reward reads.

    Args:
        reward: registry name.
        repository: hub id, or the address of the page that offers the files.
        files: names or patterns (``*.safetensors``) below the repository; each must be there, of names with ``|``
            between them one. In place of a pickle (``.pt``) the same tensors under the same name as ``.safetensors``
            will do.
        licence: of the weights.
        on_hub: whether ``repository`` is a hub id, from which the files can be fetched.
        also: names or patterns of what is fetched with them where it is there.
        bundled: name of a bundled model of this kind, such as ``shapes-clip``; ``""`` where there is none.
    """

    reward: str
    repository: str
    files: tuple[str, ...]
    licence: str
    on_hub: bool = True
    also: tuple[str, ...] = ()
    bundled: str = ""

    def __str__(self) -> str:
        files = ", ".join(file.replace("|", " or ") for file in self.files)
        return f"{files} of {self.repository} (licence: {self.licence})"

    def place(self, path: str | None) -> str:
        """Return what a path means: an existing folder or file, or a hub id. Nothing is fetched or opened.

        Args:
            path: a folder or file, ``bundled:<world>-<model>``, or a hub id where ``on_hub``.

        Raises:
            ConfigError: no path; the message names the choices.
            ModelError: no such bundled model, file or folder; the message says what the reward reads.
        """
        if path is None:
            choices = [*([f"the hub id '{self.repository}'"] if self.on_hub else []), "a folder"]
            choices += [f"'{PREFIX}{self.bundled}'"] if self.bundled else []
            listed = " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
            raise ConfigError(f"reward '{self.reward}' needs a path: {listed}; it reads {self}")
        found = Path(resolve(path)).expanduser()
        if found.exists():
            return str(found)
        if not self.on_hub or path.startswith((".", "/", "~")) or path.count("/") != 1:
            raise ModelError(f"{path}: no such file or folder; reward '{self.reward}' reads {self}")
        return path

    def find(self, path: str | None) -> Path:
        """Return the folder that holds the files: ``path`` itself, or what the hub has under that name.

        Args:
            path: as `place` takes it; of one file alone, its own path will do: then the file is returned.

        Raises:
            ConfigError: no path.
            ModelError: a file is missing there; the message names it, the repository and the licence.
        """
        place = self.place(path)
        found = Path(place)
        if found.is_file() and len(self.files) == 1:
            return found
        if not found.exists():
            return self.fetch(place)
        self.check(found)
        return found

    def check(self, folder: Path) -> None:
        """Stop where a file is missing.

        Args:
            folder: an existing folder.

        Raises:
            ModelError: naming the file, the repository and the licence.
        """
        for pattern in self.files:
            if not self._named(folder, pattern):
                missing = pattern.replace("|", " or ")
                raise ModelError(f"{folder}: no file {missing}; reward '{self.reward}' reads {self}")

    def file(self, folder: Path, pattern: str) -> Path:
        """Return one of the files of a folder that was found; of a pickle its twin in safetensors, if there is one."""
        return self._named(folder, pattern)[0]

    @staticmethod
    def _named(folder: Path, pattern: str) -> list[Path]:
        wanted = [one for choice in pattern.split("|") for one in (*_twin(choice), choice)]
        present = [str(file.relative_to(folder)) for file in sorted(folder.rglob("*"))] if folder.is_dir() else []
        return [folder / name for one in wanted for name in present if fnmatch(name, one)]

    def fetch(self, hub_id: str, *, offline: bool = False) -> Path:
        """Return the folder of the hub's files.

        Args:
            hub_id: repository with files of the same names.
            offline: take what was fetched before, and nothing else.

        Raises:
            ModelError: they cannot be had, or one is not there.
        """
        from huggingface_hub import snapshot_download

        patterns = [pattern for file in (*self.files, *self.also) for pattern in file.split("|")]
        try:
            folder = Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=offline))
        except (OSError, ValueError) as error:
            reason = first_line(error)
            raise ModelError(
                f"{hub_id}: could not be fetched ({reason}); reward '{self.reward}' reads {self}"
            ) from error
        self.check(folder)
        return folder


def _twin(pattern: str) -> list[str]:
    """Return the name of a pickle's tensors in safetensors."""
    return [str(Path(pattern).with_suffix(".safetensors"))] if Path(pattern).suffix in PICKLED else []
