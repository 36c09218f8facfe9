"""Captions by any vision-language model of transformers, as DCPO's by LLaVA-1.6 and Emu2.

The published prompt is not known; ours asks for one sentence, short enough for CLIP's 77 tokens, and tells the prompt
that the picture answers ("conditional", as in the paper), unless it is not to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import Field

from diffpref.config import Section
from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Clip, Media
from diffpref.core.errors import DiffprefError
from diffpref.generation.captioners import registry
from diffpref.rewards._weights import Precision

__all__ = ["Vlm"]

NAME = "vlm"
ASK = "Say in one sentence of at most 40 words what this picture shows: the things, their colours, where they are."
TOLD = " It was made for the caption: {prompt}"
SHOWN = 4
"""Frames of a clip that are shown, evenly spaced."""


@registry.register(NAME)
class Vlm(Section):
    """Options of the captioner."""

    path: str = Field(min_length=1, description="hub id or folder of an image-text-to-text model of transformers")
    conditional: bool = Field(default=True, description="tell the model the prompt that the picture answers")
    template: str | None = Field(
        default=None, description="text file with the question, {prompt} and {image} in their places; not given: ours"
    )
    max_new_tokens: PositiveInt = Field(default=70, description="tokens of a caption at most")
    precision: Precision = Field(default="float32", description="number format of the network")
    batch_size: PositiveInt = Field(default=1, description="pictures of equal size that are shown at once")
    allow_pickle: bool = Field(default=False, description="accept weights that only a pickle holds")

    def load(self, device: str) -> Any:
        """Return the captioner.

        Raises:
            ModelError: nothing that can be loaded safely lies at the path.
            ConfigError: no such template.
        """
        from diffpref.rewards._asking import Template, read_template
        from diffpref.rewards._vlm import open_vlm

        with _as_captioner():
            default = Template(ASK + TOLD * self.conditional)
            template = read_template(NAME, self.template, default).check(NAME, 1, prompt=self.conditional)
            model = open_vlm(
                NAME,
                self.path,
                device=device,
                precision=self.precision,
                micro_batch=self.batch_size,
                allow_pickle=self.allow_pickle,
            )
            return Teller(model, template, self)


class Teller:
    """Asks a model; its most probable words are the caption, so that it reads no seeds."""

    def __init__(self, model: Any, template: Any, options: Vlm) -> None:
        self.model, self.template, self.options = model, template, options

    @property
    def identity(self) -> str:
        """What decides on a caption besides picture and prompt."""
        told = self.options
        return f"{NAME} {told.path} {told.precision} {told.max_new_tokens} {self.template.digest}"

    def __call__(self, media: Sequence[Media], prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        with _as_captioner():
            asked = [self._ask(prompt, one) for one, prompt in zip(media, prompts, strict=True)]
            answers: list[str] = self.model.answers(asked, self.options.max_new_tokens)
            return answers

    def _ask(self, prompt: str, media: Media) -> Any:
        from PIL import Image

        from diffpref.data.clips import spaced
        from diffpref.data.images import to_uint8

        if not isinstance(media, Clip):
            return self.template.ask(prompt, Image.fromarray(to_uint8(media)))
        frames = [media.frames[number] for number in spaced(len(media.frames), SHOWN)]
        return self.template.ask(prompt, *(Image.fromarray(to_uint8(frame)) for frame in frames))


@contextmanager
def _as_captioner() -> Iterator[None]:
    """Let errors of the model, which rewards ask too, name the captioner."""
    try:
        yield
    except DiffprefError as error:
        raise type(error)(str(error).replace("reward", "captioner", 1)) from error
