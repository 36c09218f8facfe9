"""What makes a saved pipeline load with ``custom_pipeline=``, in a process that has not imported diffpref."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from diffpref.core.files import write_atomic

__all__ = ["SavesItsLoader"]

LOADER = '''"""Loads with DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)."""

# diffusers runs the pipeline.py of every folder in one and the same module, and wants a single pipeline in it
for other in [name for name in globals() if name.endswith("Pipeline")]:
    del globals()[other]

from diffpref.pipelines.{module} import {name}  # noqa: E402

__all__ = ["{name}"]
'''


class SavesItsLoader:
    """Stands before ``DiffusionPipeline`` among the bases of a pipeline of ours.

    It is no ``DiffusionPipeline`` itself: the file that ``custom_pipeline=`` names may hold one of those only.
    """

    registered: ClassVar[str]
    """The pipeline's name in the registry, which is that of its file."""

    def save_pretrained(self, save_directory: str | PathLike[str], **options: Any) -> None:
        """Save components and settings, and a ``pipeline.py`` for ``custom_pipeline=``."""
        loader = LOADER.format(module=self.registered, name=type(self).__name__)
        write_atomic(Path(save_directory) / "pipeline.py", loader)
        super().save_pretrained(save_directory, **options)  # type: ignore[misc]
