"""General preference model (Zhang et al., ICML 2025, arXiv 2410.02197): a judge that may prefer in circles.

Each answer becomes an embedding of blocks of two numbers; the first of two answers is better with probability
``sigmoid(s / temperature)`` of the skew-symmetric product s of their embeddings, so that P(a, b) + P(b, a) = 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from diffpref.core.annotations import Positive, PositiveInt
from diffpref.core.assets import resolve
from diffpref.core.contracts import Reward, RewardInfo
from diffpref.objectives.general_preference import preference_score
from diffpref.rewards import registry
from diffpref.rewards._gpm_readers import Scales, open_published, open_run
from diffpref.rewards._published import Published
from diffpref.rewards._text_judge import TextJudge
from diffpref.rewards._text_network import network_version
from diffpref.rewards._weights import Precision, content_version

__all__ = ["PUBLISHED", "load_gpm", "odds"]

PUBLISHED = Published(
    "gpm",
    "general-preference/GPM-Llama-3.1-8B",
    ("*.safetensors", "config.json"),
    "as its base model; the code's is Apache-2.0",
    also=("*.json", "*.jinja", "*.model"),
)


def odds(
    first: Tensor, second: Tensor, factors: Tensor | None = None, *, temperature: float = 0.1, normalize: bool = True
) -> Tensor:
    """Return the log-odds that the first of two answers is the better one; antisymmetric.

    Args:
        first: (N, 2D) embeddings.
        second: (N, 2D) embeddings.
        factors: (N, 2D) how much each number counts for this prompt, equal within a block; None: all count 1.
        temperature: tau, which divides the product.
        normalize: bring embeddings to length 1 first.

    Returns:
        (N,).

    Raises:
        ShapeError: an odd number of features.
    """
    if normalize:
        first, second = (torch.nn.functional.normalize(one, dim=-1) for one in (first, second))
    return preference_score(first if factors is None else first * factors, second) / temperature


@registry.register("gpm")
def load_gpm(
    path: str | None = None,
    *,
    base: str | None = None,
    template: Literal["auto", "chat", "plain"] = "auto",
    temperature: Positive = 0.1,
    normalize: bool = True,
    scales: Scales = "example",
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 8,
) -> Reward:
    """Load a general preference model.

    ``compare(first, second, prompts)`` is P(first is better); ``score`` wants ``metadata[i]["reference"]``, an answer
    to compare with, and gives the log-odds against it.

    Args:
        path: a published model: hub id or folder of a decoder with ``value_head.weight`` in its safetensors; or the
            folder of a run of ``diffpref train`` with objective ``gpm``: ``heads/`` beside ``lora/`` or ``model/``.
        base: of a run: the model that was trained, where its ``config.yaml`` does not say it any more.
        template: of a run: how prompts were shown: by the chat template or as plain text; ``auto``: by the template
            where the tokenizer has one. A published model always has a template.
        temperature: tau of its training: 0.1 as published.
        normalize: whether embeddings are brought to length 1: as the paper and the official example do.
        scales: of a published model with a head for prompts: see `Scales`.
        device: where it runs.
        precision: of the network; heads and products are always computed in float32.
        micro_batch: answers of one length that run at once.

    Raises:
        ModelError: a file is missing, or there is no head for embeddings.
    """
    told = Path(resolve(path)).expanduser() if path is not None else None
    if told is not None and (told / "heads" / "heads.json").is_file():
        chat = {"auto": None, "chat": True, "plain": False}[template]
        embed = open_run(told, base, chat=chat, device=device, precision=precision, micro_batch=micro_batch)
        parts = [content_version(told / name) for name in ("heads", "lora", "model") if (told / name).is_dir()]
        version, licence = f"sha256-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}", "as its base model"
    else:
        folder = PUBLISHED.find(path)
        embed, network = open_published(
            folder, scales=scales, device=device, precision=precision, micro_batch=micro_batch
        )
        version, licence = network_version(network, str(folder)), PUBLISHED.licence

    def log_odds(first: Sequence[str], second: Sequence[str], prompts: Sequence[str]) -> Tensor:
        said, factors = embed([*first, *second], [*prompts, *prompts])
        one, other = said.chunk(2)
        return odds(one, other, factors[: len(one)], temperature=temperature, normalize=normalize)

    settings = [template if template != "auto" else "", scales if scales != "example" else "", precision]
    settings += [f"tau{temperature:g}", "" if normalize else "raw"]
    largest = 1 / temperature * (embed.size // 2 if scales == "training" else 1) if normalize else torch.inf
    info = RewardInfo(
        name="gpm",
        version="+".join([version, *(part for part in settings if part not in ("", "float32"))]),
        licence=licence,
        range=(-largest, largest),
        needs_metadata=True,
        media="text",
    )
    return TextJudge(info, log_odds)
