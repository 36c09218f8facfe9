"""Which weights a scorer may load, and how their content names its version."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal, TypeAlias

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from diffpref.core.assets import PREFIX
from diffpref.core.errors import ModelError
from diffpref.core.files import sha256

__all__ = [
    "PICKLED",
    "UNREADABLE",
    "Precision",
    "check_vocabulary",
    "content_version",
    "digest",
    "first_line",
    "licence_of",
    "refuse_pickle",
]

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]

# what readers of weights and configs raise on files that are not theirs
UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    UnpicklingError,
    SafetensorError,
    StrictDataclassError,
)

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_CONTENT = (
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
)


def refuse_pickle(path: Path, allow_pickle: bool) -> None:
    """Stop before weights that only a pickle holds.

    Args:
        path: a weights file, or a model's folder.
        allow_pickle: the caller trusts the file; it is still read with ``weights_only=True``.

    Raises:
        ModelError: there are no weights, or only pickled ones.
    """
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    if any(file.suffix == ".safetensors" for file in files):
        return
    pickled = [file.name for file in files if file.suffix in PICKLED]
    if not pickled:
        raise ModelError(f"{path} holds no weights: expected a .safetensors file")
    if not allow_pickle:
        raise ModelError(
            f"{path} holds pickled weights only ({pickled[0]}), which may run code; convert them to safetensors, or"
            " pass allow_pickle=true if you trust them"
        )


def check_vocabulary(path: str | Path, num_words: int, num_embeddings: int) -> None:
    """Stop where a tokenizer does not belong to its model; one without files comes out empty, without an error.

    Raises:
        ModelError: the tokenizer knows more words than the model embeds, or hardly any of them.
    """
    if not 0.9 * num_embeddings <= num_words <= num_embeddings:
        raise ModelError(
            f"{path}: the tokenizer knows {num_words} words, the model {num_embeddings}; are its files there?"
        )


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed: int) -> str:
    return sha256(path)


def digest(path: Path) -> str:
    """Return the sha256 of a file, which is read once in a process as long as it does not change."""
    told = path.stat()
    return _digest(path.resolve(), told.st_size, told.st_mtime_ns)


def content_version(path: Path) -> str:
    """Return ``sha256-`` and twelve digits that change with the weights, the tokenizer or the preprocessing."""
    if path.is_file():
        return f"sha256-{digest(path)[:12]}"
    files = sorted(p for p in path.iterdir() if p.name in _CONTENT or p.suffix in (".safetensors", *PICKLED))
    joined = "".join(f"{file.name}:{digest(file)};" for file in files)
    return f"sha256-{hashlib.sha256(joined.encode()).hexdigest()[:12]}"


def licence_of(path: str | None, usual: str) -> str:
    """Return the licence of the weights behind a path: our own are Apache-2.0."""
    return "Apache-2.0" if path is not None and path.startswith(PREFIX) else usual


def first_line(error: Exception) -> str:
    """Return what an error says in one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
