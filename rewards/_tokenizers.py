"""Tokenizers of rewards that read text, and how their words name a version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from diffpref.core.errors import ModelError
from diffpref.rewards._weights import UNREADABLE, check_vocabulary, first_line

__all__ = ["load_tokenizer", "vocabulary_version"]


def load_tokenizer(path: str | Path, num_embeddings: int, *, bert: bool = False) -> Any:
    """Load a tokenizer that fits a model.

    Args:
        path: folder or hub id.
        num_embeddings: how many words the model embeds.
        bert: whether it is BERT's, of which a ``vocab.txt`` is enough.

    Raises:
        ModelError: there is none, or it is another model's.
    """
    from transformers import AutoTokenizer, BertTokenizer

    try:
        tokenizer = (BertTokenizer if bert else AutoTokenizer).from_pretrained(path)
    except UNREADABLE as error:
        raise ModelError(f"{path}: no tokenizer could be loaded: {first_line(error)}") from error
    check_vocabulary(path, len(tokenizer), num_embeddings)
    return tokenizer


def vocabulary_version(tokenizer: Any) -> str:
    """Return twelve digits that change with the words and their numbers."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:12]
