"""How near an answer's meaning is to a reference's: the cosine of their vectors (Reimers and Gurevych, EMNLP 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ModelError
from diffpref.rewards import registry
from diffpref.rewards._dual_encoder import paired_cosine
from diffpref.rewards._media import as_texts, check_lengths
from diffpref.rewards._published import Published
from diffpref.rewards._sentences import SentenceEncoder, open_head
from diffpref.rewards._text_network import context_of, network_version, open_network, references
from diffpref.rewards._tokenizers import load_tokenizer
from diffpref.rewards._weights import Precision

__all__ = ["PUBLISHED", "SentenceSimilarity", "load_sentence_similarity"]

PUBLISHED = Published(
    "sentence_similarity",
    "sentence-transformers/all-MiniLM-L6-v2",
    ("config.json", "*.safetensors"),
    "Apache-2.0",
    also=("*.json", "*.txt", "*.model"),
)
"""A small one of many: any encoder of transformers in safetensors will do."""


class SentenceSimilarity:
    """Scores answers by a cosine.

    Args:
        info: what it says of itself.
        encoder: texts -> vectors.
        against: ``reference``: the text in the metadata; ``prompt``: the prompt.
    """

    def __init__(self, info: RewardInfo, encoder: SentenceEncoder, against: Literal["reference", "prompt"]) -> None:
        self._info, self.encoder, self.against = info, encoder, against

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 on the CPU for N answers.

        Raises:
            ShapeError: not as many prompts as answers.
            DataError: an answer is no text, or an item has no reference.
        """
        name = self._info.name
        check_lengths(name, media, prompts, metadata)
        answers = as_texts(name, media)
        others = list(prompts)
        if self.against == "reference":
            others = references(name, metadata, "compares an answer with a reference") if answers else []
        if not answers:
            return torch.zeros(0)
        vectors = self.encoder([*answers, *others])
        return paired_cosine(vectors[: len(answers)], vectors[len(answers) :])


@registry.register("sentence_similarity")
def load_sentence_similarity(
    path: str | None = None,
    *,
    against: Literal["reference", "prompt"] = "reference",
    prefix: str = "",
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
) -> Reward:
    """Load a sentence encoder as a reward.

    The layout of sentence-transformers is read: ``modules.json``, ``1_Pooling/config.json``, dense layers,
    ``max_seq_length`` of ``sentence_bert_config.json``; of a plain encoder the last hidden states are averaged. Longer
    texts are cut, as that library does it.

    Args:
        path: hub id or folder.
        against: what an answer is compared with: ``reference``: ``metadata[i]["reference"]``; ``prompt``: its prompt.
        prefix: put before each text, where a model was trained with one, such as ``"query: "``.
        device: where it runs.
        precision: of the network; vectors and cosine are always computed in float32.
        micro_batch: texts of one length that run at once.

    Raises:
        ModelError: no such model, weights that may not be loaded, or a layer that is not known.
    """
    from transformers import AutoModel

    folder = PUBLISHED.find(path)
    network, _ = open_network(
        "sentence_similarity",
        AutoModel,
        str(folder),
        device=device,
        precision=precision,
        allow_pickle=False,
        unread="pooler.",  # BERT's own, of its first token; many encoders were saved without it
    )
    if network.config.is_encoder_decoder:
        raise ModelError(
            f"{folder}: reads with an encoder and writes with a decoder; reward 'sentence_similarity' takes encoders"
        )
    tokenizer = load_tokenizer(folder, network.get_input_embeddings().num_embeddings)
    lengths = [context_of(network, tokenizer), _max_length(folder)]
    encoder = SentenceEncoder(
        network,
        tokenizer,
        open_head(folder),
        min((length for length in lengths if length), default=None),
        prefix,
        micro_batch,
    )
    parts = (against, f"prefix {prefix}" if prefix else "", precision)
    info = RewardInfo(
        name="sentence_similarity",
        version="+".join([_version(network, folder), *(part for part in parts if part not in ("", "float32"))]),
        licence="see the model's card",
        range=(-1.0, 1.0),
        needs_prompt=against == "prompt",
        needs_metadata=against == "reference",
        media="text",
    )
    return SentenceSimilarity(info, encoder, against)


def _max_length(folder: Path) -> int | None:
    import json

    try:
        told = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8")).get("max_seq_length")
    except (OSError, ValueError, AttributeError):  # the file is optional, and the model's own length is a limit too
        return None
    return int(told) if told else None


def _version(network: Any, folder: Path) -> str:
    """Return a name for the weights and for the layers after them."""
    import hashlib

    from diffpref.core.files import sha256

    after = [folder / "modules.json", folder / "sentence_bert_config.json"]
    after += sorted(file for file in folder.glob("[0-9]*_*/*") if file.is_file())
    told = "".join(sha256(file) for file in after if file.is_file())
    return f"{network_version(network, str(folder))}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
