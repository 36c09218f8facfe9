"""Reward models of texts: any sequence classifier of transformers that gives one number to a prompt with its answer.

Most open reward models of language models are of this kind; a prompt with its answer goes through the tokenizer's chat
template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffpref.core.annotations import NonNegativeInt, PositiveInt
from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError
from diffpref.rewards import registry
from diffpref.rewards._media import as_texts, check_lengths
from diffpref.rewards._text_network import (
    Template,
    context_of,
    float_head,
    network_version,
    open_network,
    readable,
    text_rows,
)
from diffpref.rewards._tokenizers import load_tokenizer
from diffpref.rewards._vlm import grouped
from diffpref.rewards._weights import Precision

__all__ = ["SequenceReward", "load_sequence_reward"]

HEADS = ("score", "classifier", "classification_head")
"""What transformers calls the last layer of its sequence classifiers."""


class SequenceReward:
    """Scores answers by a sequence classifier.

    Args:
        info: what it says of itself.
        network: of transformers.
        tokenizer: its own.
        template: how prompt and answer are joined.
        label: whose log-odds are the score; None: the one number that the network gives.
        micro_batch: texts of one length that run at once.
    """

    def __init__(
        self,
        info: RewardInfo,
        network: Any,
        tokenizer: Any,
        template: Template = "auto",
        label: int | None = None,
        micro_batch: int = 16,
    ) -> None:
        self._info, self.network, self.tokenizer, self.template = info, network, tokenizer, template
        self.label, self.micro_batch = label, micro_batch
        self._context = context_of(network, tokenizer)

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    @torch.no_grad()
    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 on the CPU for N answers and N prompts.

        Raises:
            ShapeError: not as many prompts as answers.
            DataError: an answer is no text, or too long together with its prompt.
        """
        name = self._info.name
        check_lengths(name, media, prompts, metadata)
        answers = as_texts(name, media)
        rows = text_rows(name, self.tokenizer, prompts, answers, self.template, self._context)
        found = grouped(rows, self._run, self.micro_batch)
        return torch.stack(found) if found else torch.zeros(0)

    def _run(self, batch: Mapping[str, Tensor]) -> Tensor:
        logits = self.network(**readable(self.network, batch)).logits.float()
        if self.label is None:
            return logits[:, 0].cpu()
        others = torch.cat([logits[:, : self.label], logits[:, self.label + 1 :]], dim=1)
        return (logits[:, self.label] - others.logsumexp(dim=1)).cpu()


@registry.register("sequence_reward")
def load_sequence_reward(
    path: str | None = None,
    *,
    template: Template = "auto",
    label: NonNegativeInt | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
    allow_pickle: bool = False,
) -> Reward:
    """Load a reward model of texts. The range of its scores is its own; most are trained as Bradley-Terry models.

    Args:
        path: hub id or folder of a model that ``AutoModelForSequenceClassification`` loads, with its tokenizer.
        template: how prompt and answer are joined: ``chat``, ``pair`` or ``plain``; ``auto``: by the tokenizer's chat
            template where it has one, else as a pair of texts.
        label: of a classifier of several labels, the number of the one whose log-odds against the others are the score.
        device: where it runs.
        precision: of the network; its last layer is always computed in float32.
        micro_batch: texts of one length that run at once.
        allow_pickle: accept weights that only a pickle holds.

    Raises:
        ConfigError: no path, several labels and none chosen, or one that is not there.
        ModelError: no such model, or weights that may not be loaded.
    """
    from transformers import AutoModelForSequenceClassification

    network, found = open_network(
        "sequence_reward",
        AutoModelForSequenceClassification,
        path,
        device=device,
        precision=precision,
        allow_pickle=allow_pickle,
        expected="any sequence classifier of transformers",
    )
    count = int(network.config.num_labels)
    if label is None and count != 1:
        names = ", ".join(f"{number} {name}" for number, name in sorted(network.config.id2label.items()))
        raise ConfigError(f"reward 'sequence_reward': {path} has {count} labels; choose one with label: {names}")
    if label is not None and not (count > 1 and label < count):
        raise ConfigError(f"reward 'sequence_reward': {path} has {count} labels, got label {label}")
    tokenizer = load_tokenizer(found, network.get_input_embeddings().num_embeddings)
    config = network.config.get_text_config()
    if config.pad_token_id is None:  # then the last token is the one that is read, which only one row alone may have
        config.pad_token_id = -1
    for head in HEADS:
        if hasattr(network, head):
            float_head(getattr(network, head))
    parts = (template if template != "auto" else "", f"label{label}" if label is not None else "", precision)
    info = RewardInfo(
        name="sequence_reward",
        version="+".join([network_version(network, found), *(p for p in parts if p not in ("", "float32"))]),
        licence="see the model's card",
        range=(-torch.inf, torch.inf),
        pair_scale=1.0 if label is None else None,
        media="text",
    )
    return SequenceReward(info, network, tokenizer, template, label, micro_batch)
