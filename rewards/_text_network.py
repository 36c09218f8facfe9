"""Networks of transformers that read text, loaded safely, and rewards around them: nothing is padded.

Each row of tokens runs only with rows of its own length, so that what it scores does not depend on the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from diffpref.core.assets import resolve
from diffpref.core.errors import ConfigError, DataError, ModelError
from diffpref.rewards._weights import PICKLED, UNREADABLE, Precision, content_version, first_line, refuse_pickle

__all__ = [
    "Template",
    "context_of",
    "float_head",
    "network_version",
    "open_network",
    "readable",
    "references",
    "text_rows",
]

Template: TypeAlias = Literal["auto", "chat", "pair", "plain"]
"""How prompt and answer become one text: by the tokenizer's chat template, as the tokenizer joins two texts, or one
after the other; ``auto`` is ``chat`` where there is a template, else ``pair``."""


def open_network(
    owner: str,
    kind: type[Any],
    path: str | None,
    *,
    device: str,
    precision: Precision,
    allow_pickle: bool,
    unread: str = "",
    expected: str = "a model of transformers",
) -> tuple[Any, str]:
    """Load a network of transformers; code of a repository is never run.

    Args:
        owner: the reward, for messages.
        kind: an Auto class of transformers.
        path: folder or hub id.
        device: where it runs.
        precision: of the network.
        allow_pickle: accept weights that only a pickle holds.
        unread: beginning of the names of weights that may be missing, because nothing reads them.
        expected: what the folder should hold, for messages.

    Returns:
        the network, frozen, and the folder or hub id.

    Raises:
        ConfigError: no path.
        ModelError: no such model there, or weights are missing.
    """
    if path is None:
        raise ConfigError(f"reward '{owner}' needs a path: a hub id or a folder with a model of transformers")
    found = resolve(path)
    if Path(found).is_dir():
        if not any(file.suffix in (".safetensors", *PICKLED) for file in Path(found).iterdir()):
            raise ModelError(
                f"reward '{owner}': {found} holds no weights; expected {expected}: config.json, *.safetensors and the"
                " tokenizer's files"
            )
        refuse_pickle(Path(found), allow_pickle)
    elif found.startswith((".", "/", "~")) or found.count("/") > 1:
        raise ModelError(f"{found}: no such folder; reward '{owner}' reads a model of transformers")
    try:
        network, loaded = kind.from_pretrained(
            found,
            use_safetensors=None if allow_pickle else True,
            dtype=getattr(torch, precision),
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (*UNREADABLE, ImportError) as error:
        raise ModelError(f"reward '{owner}': {found} holds no such model: {first_line(error)}") from error
    missing = sorted(name for name in loaded["missing_keys"] if not (unread and name.startswith(unread)))
    if missing:  # transformers would draw these at random
        raise ModelError(f"reward '{owner}': {found} lacks {len(missing)} weights, such as {missing[0]}")
    return network.eval().requires_grad_(False).to(device), found


def network_version(network: Any, found: str) -> str:
    """Return what names the weights: their content, or the commit of a hub id."""
    if Path(found).is_dir():
        return content_version(Path(found))
    return f"{found}@{(getattr(network.config, '_commit_hash', None) or 'unknown')[:12]}"


def float_head(head: nn.Module) -> None:
    """Make a last layer compute in float32 whatever the network's precision is, so that it makes no false ties."""
    head.float()
    head.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))


def readable(network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a network's ``forward`` takes by name, on its device; tokenizers may tell more than it knows."""
    known = inspect.signature(network.forward).parameters
    return {name: tensor.to(network.device) for name, tensor in batch.items() if name in known}


def context_of(network: Any, tokenizer: Any) -> int | None:
    """Return how many tokens are read at once; None where nobody says."""
    said = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    told = [length for length in (said, tokenizer.model_max_length) if length and length < 10**9]
    return min(told, default=None)


def text_rows(
    owner: str,
    tokenizer: Any,
    prompts: Sequence[str],
    answers: Sequence[str],
    template: Template,
    context: int | None,
) -> list[dict[str, Tensor]]:
    """Return what a network reads of each prompt with its answer, as of a batch of one.

    Args:
        owner: the reward, for messages.
        tokenizer: the network's.
        prompts: N texts.
        answers: N texts.
        template: how they are joined.
        context: the longest row, tokens.

    Raises:
        DataError: a row is too long, or empty; the message has its number.
    """
    chat = template == "chat" or (template == "auto" and tokenizer.chat_template)
    if chat and not tokenizer.chat_template:
        raise ConfigError(f"reward '{owner}': template is chat, and the tokenizer has no chat template")
    rows = []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        if chat:
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            told = tokenizer.apply_chat_template(messages, return_dict=True, return_tensors="pt")
        elif template == "plain":
            told = tokenizer(prompt + answer, return_tensors="pt")
        else:
            told = tokenizer(prompt, answer, return_tensors="pt")
        length = told["input_ids"].shape[1]
        if not length:
            raise DataError(f"reward '{owner}', item {number}: prompt and answer have no tokens")
        if context is not None and length > context:
            raise DataError(f"reward '{owner}', item {number}: {length} tokens, and the model reads {context}")
        rows.append(dict(told))
    return rows


def references(owner: str, metadata: Sequence[Mapping[str, Any]] | None, why: str) -> list[str]:
    """Return the reference answer of each item: ``metadata[i]["reference"]``.

    Raises:
        DataError: there is none, or it is no text; the message says why one is needed.
    """
    if metadata is None:
        raise DataError(f"reward '{owner}' {why}: give metadata [{{'reference': text}}, ...]")
    found = []
    for number, entry in enumerate(metadata):
        if not isinstance(entry.get("reference"), str):
            raise DataError(f"reward '{owner}', item {number}: metadata has no text 'reference'; it {why}")
        found.append(entry["reference"])
    return found
