"""The recipe of captions: who tells what candidates show, who says it in other words, and how far off."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffpref.config import Named, Section
from diffpref.core.annotations import PositiveInt
from diffpref.data.captions import GENERATED
from diffpref.generation.captioning import CaptionSettings

__all__ = ["CaptionRecipe"]

Text = Annotated[str, Field(min_length=1)]
Percent = Annotated[int, Field(ge=1, le=100)]


class CaptionRecipe(Section):
    """A store to a copy of it whose candidates carry captions."""

    format: Literal[1] = Field(default=1, description="version of this file format")
    seed: int = Field(default=0, description="every caption is a function of it, the candidate and what was asked")
    source: Text = Field(description="folder of the store whose candidates get captions; it is left as it is")
    output: Text = Field(description="folder of the new store")
    captioner: Named | None = Field(
        default=None, description="tells what a candidate shows: rules, vlm, or another's name; not given: nobody does"
    )
    kind: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]*$")] = Field(
        default=GENERATED, description="what the captioner's captions are called, such as llava"
    )
    paraphraser: Named | None = Field(
        default=None, description="says a caption in other words: rules, dipper, instruct; not given: nobody does"
    )
    levels: list[Percent] = Field(
        default_factory=lambda: [40, 60, 80],
        min_length=1,
        description="how far paraphrases go, percent of the words; DCPO's weak, medium and strong are 40, 60 and 80",
    )
    paraphrased: list[Text] | None = Field(
        default=None, description="kinds of captions that are paraphrased; not given: prompt, and the captioner's"
    )
    max_words: PositiveInt = Field(
        default=50, description="words of a caption at most, whole sentences if it can be; CLIP reads 77 tokens"
    )
    on_empty: Literal["raise", "prompt"] = Field(
        default="raise", description="when nothing is said of a candidate: stop, or take the record's prompt"
    )
    batch_size: PositiveInt = Field(default=64, description="candidates that captioner and paraphraser get at once")
    unit_size: PositiveInt = Field(
        default=256, description="records of one part of the store; what an interruption costs at most"
    )

    @model_validator(mode="after")
    def _ask_somebody(self) -> CaptionRecipe:
        if self.captioner is None and self.paraphraser is None:
            raise ValueError("captioner: name one, or a paraphraser; with neither there is nothing to do")
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"levels: must be different ones, got {self.levels}")
        return self

    def settings(self) -> CaptionSettings:
        """Return what `caption_store` is told."""
        return CaptionSettings(
            seed=self.seed,
            kind=self.kind,
            levels=tuple(self.levels),
            paraphrased=None if self.paraphrased is None else tuple(self.paraphrased),
            max_words=self.max_words,
            on_empty=self.on_empty,
            batch_size=self.batch_size,
            unit_size=self.unit_size,
        )
