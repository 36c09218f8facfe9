"""Paraphrases by DIPPER (Krishna et al., arXiv:2303.13408), a T5, asked as DCPO does; or by any model trained alike.

The model reads two control codes, ``100 - diversity`` each, what stands before, and up to three sentences in ``sent``
tags; it answers with these in other words. DCPO perturbs captions at lexical diversities 40, 60 and 80 and order
diversity 0, drawing from the likeliest tokens with top_p 0.75, 256 tokens at most. Its own script seeds nothing; here
every text is drawn by a seed of its own.

Source: sahsaeedi/DCPO-T2I ``src/perturb_caption.py``, written anew from its description; the sentence that stands
before a caption there is its authors', ours says the same in other words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field

from diffpref.config import Section
from diffpref.core.annotations import Positive, PositiveInt
from diffpref.core.errors import DataError, ModelError
from diffpref.core.randomness import hash_key
from diffpref.generation.paraphrasers import registry
from diffpref.rewards._weights import UNREADABLE, Precision, first_line
from diffpref.sampling.text import KeyedDraw, TextSettings, plain_generation

__all__ = ["Dipper"]

BEFORE = "The following is the caption of a picture, to be said in other words and a little off the truth."
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@registry.register("dipper")
class Dipper(Section):
    """Options of the paraphraser; the defaults are DCPO's."""

    path: str = Field(min_length=1, description="hub id or folder of a sequence-to-sequence model of transformers")
    tokenizer: str | None = Field(default=None, description="where its tokenizer lies; not given: with the model")
    order_diversity: Annotated[int, Field(ge=0, le=100)] = Field(
        default=0, description="how far sentences may change places, percent"
    )
    window: PositiveInt = Field(default=3, description="sentences that are said anew at once")
    before: str = Field(default=BEFORE, description="what stands before the caption")
    top_p: Annotated[Positive, Field(le=1)] = Field(default=0.75, description="draw from the likeliest tokens")
    max_new_tokens: PositiveInt = Field(default=256, description="tokens of a window at most")
    precision: Precision = Field(default="float32", description="number format of the network")
    batch_size: PositiveInt = Field(default=16, description="texts at once")
    allow_pickle: bool = Field(default=False, description="accept weights that only a pickle holds, as DIPPER's own do")

    def load(self, device: str) -> Any:
        """Return the paraphraser.

        Raises:
            ModelError: nothing that can be loaded safely lies at a path.
        """
        from transformers import AutoModelForSeq2SeqLM

        from diffpref.models.decoders import load_tokenizer

        safetensors = None if self.allow_pickle else True
        try:
            network = AutoModelForSeq2SeqLM.from_pretrained(
                self.path, dtype=getattr(torch, self.precision), use_safetensors=safetensors, trust_remote_code=False
            )
            tokenizer = load_tokenizer(self.tokenizer or self.path)
        except ModelError as error:
            raise ModelError(str(error).replace("model.path", "paraphraser 'dipper'", 1)) from error
        except (*UNREADABLE, ImportError) as error:
            raise ModelError(
                f"paraphraser 'dipper': {self.path} holds no sequence-to-sequence model: {first_line(error)}"
            ) from error
        if len(tokenizer) > network.get_input_embeddings().weight.shape[0]:
            raise ModelError("paraphraser 'dipper': the tokenizer knows more words than the model embeds")
        return Rewriter(network.eval().requires_grad_(False).to(device), tokenizer, self)


class Rewriter:
    """Asks the model window by window; earlier windows, as they were said anew, stand before later ones."""

    def __init__(self, network: Any, tokenizer: Any, options: Dipper) -> None:
        self.network, self.tokenizer, self.options = network, tokenizer, options

    @property
    def identity(self) -> str:
        """What decides on a paraphrase besides text, level and seed."""
        told = self.options.model_dump(exclude={"batch_size", "allow_pickle"})
        return f"dipper {' '.join(map(str, told.values()))}"

    def __call__(self, texts: Sequence[str], level: int, seeds: Sequence[int]) -> list[str]:
        size, made = self.options.batch_size, []
        for start in range(0, len(texts), size):
            made += self._some(texts[start : start + size], level, seeds[start : start + size])
        return made

    def _some(self, texts: Sequence[str], level: int, seeds: Sequence[int]) -> list[str]:
        sentences = [_SENTENCE_END.split(text.strip()) for text in texts]
        window, said = self.options.window, [""] * len(texts)
        for number in range(0, max(map(len, sentences)), window):
            rows = [row for row, own in enumerate(sentences) if number < len(own)]
            asked = [self._words(said[row], " ".join(sentences[row][number : number + window]), level) for row in rows]
            answers = self._answers(asked, [hash_key(seeds[row], "window", number) for row in rows])
            for row, answer in zip(rows, answers, strict=True):
                said[row] = f"{said[row]} {answer}".strip()
        return said

    def _words(self, said: str, sentences: str, level: int) -> str:
        codes = f"lexical = {100 - level}, order = {100 - self.options.order_diversity}"
        return f"{codes} {f'{self.options.before} {said}'.strip()} <sent> {sentences} </sent>"

    @torch.no_grad()
    def _answers(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        own = self.options
        read = self.tokenizer(list(texts), padding=True, return_tensors="pt").to(self.network.device)
        settings = TextSettings(own.max_new_tokens, top_p=own.top_p, batch_size=own.batch_size)
        with plain_generation(self.network) as network:
            made = network.generate(
                input_ids=read["input_ids"],
                attention_mask=read["attention_mask"],
                max_new_tokens=own.max_new_tokens,
                do_sample=False,
                decoder_start_token_id=network.config.decoder_start_token_id,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
                logits_processor=[KeyedDraw(seeds, 1, settings)],  # the decoder begins with one token
            )
        answers: list[str] = self.tokenizer.batch_decode(made, skip_special_tokens=True)
        if len(answers) != len(texts):
            raise DataError(f"paraphraser 'dipper': {len(texts)} texts gave {len(answers)} answers")
        return [answer.strip() for answer in answers]
