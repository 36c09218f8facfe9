"""Paraphrases by any causal language model that follows instructions, asked in words, each drawn by its own seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from diffpref.config import Section
from diffpref.core.annotations import NonNegative, Positive, PositiveInt
from diffpref.core.errors import ConfigError, ModelError
from diffpref.generation.paraphrasers import registry
from diffpref.rewards._weights import Precision
from diffpref.sampling.text import TextSampler, TextSettings

__all__ = ["Instruct"]

ASK = (
    "Say this caption of a picture in other words, so that about {level} of 100 words are different and what it tells"
    " is a little off. Answer with the new caption alone, in one line.\nCaption: {caption}\nNew caption:"
)


@registry.register("instruct")
class Instruct(Section):
    """Options of the paraphraser."""

    path: str = Field(min_length=1, description="hub id or folder of a causal language model of transformers")
    template: str | None = Field(
        default=None,
        description="text file with the instruction, {caption} and {level} in their places; not given: ours",
    )
    chat: bool = Field(default=True, description="put it into the tokenizer's chat template, as what the user says")
    temperature: NonNegative = Field(default=1.0, description="of the draw; 0 = the likeliest tokens")
    top_p: Annotated[Positive, Field(le=1)] = Field(default=0.75, description="draw from the likeliest tokens")
    max_new_tokens: PositiveInt = Field(default=96, description="tokens of a paraphrase at most")
    precision: Precision = Field(default="float32", description="number format of the network")
    batch_size: PositiveInt = Field(default=16, description="texts at once")
    allow_pickle: bool = Field(default=False, description="accept weights that only a pickle holds")

    def load(self, device: str) -> Any:
        """Return the paraphraser.

        Raises:
            ModelError: nothing that can be loaded safely lies at the path.
            ConfigError: no such template, or no chat template where one is asked for.
        """
        from diffpref.models.decoders import load_decoder, load_tokenizer

        try:
            network = load_decoder(self.path, dtype=getattr(torch, self.precision), allow_pickle=self.allow_pickle)
            tokenizer = load_tokenizer(self.path)
        except ModelError as error:
            raise ModelError(str(error).replace("model.path", "paraphraser 'instruct'", 1)) from error
        settings = TextSettings(
            self.max_new_tokens, float(self.temperature), float(self.top_p), None, self.batch_size, self.chat
        )
        sampler = TextSampler(network.eval().requires_grad_(False).to(device), tokenizer, settings)
        return Asker(sampler, self._template(), self)

    def _template(self) -> str:
        if self.template is None:
            return ASK
        try:
            text = Path(self.template).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"paraphraser 'instruct': {self.template} is no text file with a template") from error
        if "{caption}" not in text:
            raise ConfigError(f"paraphraser 'instruct': {self.template} has no place {{caption}}")
        return text


class Asker:
    """Asks the model; the first line of its answer is the paraphrase."""

    def __init__(self, sampler: TextSampler, template: str, options: Instruct) -> None:
        self.sampler, self.template, self.options = sampler, template, options

    @property
    def identity(self) -> str:
        """What decides on a paraphrase besides text, level and seed."""
        asked = hashlib.sha256(self.template.encode()).hexdigest()[:8]
        return f"instruct {self.options.path} {self.options.precision} {self.sampler.settings} {asked}"

    def __call__(self, texts: Sequence[str], level: int, seeds: Sequence[int]) -> list[str]:
        asked = [self.template.replace("{level}", str(level)).replace("{caption}", text) for text in texts]
        return [answer.strip().partition("\n")[0].strip() for answer in self.sampler(asked, seeds)]
