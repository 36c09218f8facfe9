"""The recipe of a data set: everything that decides it, in one YAML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from diffpref.config import Model, Named, Section
from diffpref.core.annotations import NonNegative, Positive, PositiveInt, Probability
from diffpref.sampling import SamplerSettings, TextSettings

if TYPE_CHECKING:
    from diffpref.models import DenoiserFamily

__all__ = ["DrawnBy", "GenerationRecipe"]

Text = Annotated[str, Field(min_length=1)]


class DrawnBy(Section):
    """One of several models that draw for the same prompts; what it does not say is the recipe's."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = Field(
        description="of the source, different for each; its candidates are a function of it"
    )
    model: Model
    weights: Text | None = Field(
        default=None,
        description="what was trained of the model: a run's folder, with :ema its average; a LoRA; a denoiser's folder",
    )
    candidates: PositiveInt = Field(default=1, description="pictures or answers of each prompt by this model")
    num_inference_steps: PositiveInt | None = Field(default=None, description="denoising steps")
    guidance_scales: list[NonNegative] | None = Field(default=None, min_length=1, description="taken in turn")
    solver: Literal["ddim", "dpmpp_2m"] | None = Field(default=None, description="both are deterministic")
    resolution: PositiveInt | None = Field(default=None, description="image side in pixels")
    batch_size: PositiveInt | None = Field(default=None, description="drawn at once")


class GenerationRecipe(Section):
    """Prompts to candidates to scores."""

    format: Literal[1] = Field(default=1, description="version of this file format")
    seed: int = Field(default=0, description="every candidate is a function of it, the prompt and its number")
    output: Text = Field(description="folder of the store")
    model: Model | None = Field(default=None, description="what draws; or several, each in sources")
    sources: list[DrawnBy] = Field(
        default_factory=list,
        description="several models that draw for the same prompts; their candidates make one record",
    )
    prompts: Text | list[Text] | None = Field(
        default=None,
        description="a text file, a .jsonl file with 'prompt', shapes:SPLIT[:COUNT | :START-STOP],"
        " shapes_moving:SPLIT[:COUNT | :START-STOP], words:SPLIT:COUNT (or START-STOP), or a list",
    )
    ground_truth: Text | None = Field(
        default=None,
        description="instead of prompts: a store, or a folder of clips or pictures with captions; each is noised part"
        " of the way and candidates are drawn from there, as the guided pairs of DenseDPO",
    )
    strengths: list[Probability] = Field(
        default_factory=lambda: [0.65, 0.8],
        min_length=2,
        max_length=2,
        description="with ground_truth: the range from which each record draws how much is replaced by noise; 1 = all",
    )
    beginning: Literal["dense_dpo", "stock"] = Field(
        default="dense_dpo",
        description="with ground_truth: a strength is a noise level of flows and a share of the steps elsewhere, or, as"
        " in diffusers, always a share of the steps",
    )
    candidates: PositiveInt = Field(default=4, description="pictures, clips or answers of each prompt")
    num_inference_steps: PositiveInt = Field(default=30, description="denoising steps")
    guidance_scales: list[NonNegative] = Field(
        default_factory=lambda: [5.0], min_length=1, description="taken in turn by the candidates; 1 = no guidance"
    )
    solver: Literal["ddim", "dpmpp_2m"] = Field(default="ddim", description="both are deterministic")
    resolution: PositiveInt | None = Field(default=None, description="image side in pixels; not given: the model's own")
    num_frames: PositiveInt | None = Field(default=None, description="frames of a clip; not given: the model's own")
    fps: Positive | None = Field(
        default=None, description="frames a second at which clips are shown; not given: the model's own"
    )
    temperatures: list[NonNegative] = Field(
        default_factory=lambda: [1.0],
        min_length=1,
        description="of answers; taken in turn by the candidates; 0 = the likeliest tokens",
    )
    top_p: Annotated[Positive, Field(le=1)] = Field(
        default=1.0, description="answers: draw from the likeliest tokens that together have this probability"
    )
    max_new_tokens: PositiveInt = Field(default=64, description="tokens of an answer at most")
    chat: bool = Field(
        default=False, description="answers: put prompts into the tokenizer's chat template, as what the user says"
    )
    batch_size: PositiveInt = Field(default=16, description="pictures, clips or answers drawn at once")
    unit_size: PositiveInt = Field(
        default=32, description="prompts of one part of the store; what an interruption costs at most"
    )
    rewards: list[Named] = Field(
        default_factory=list, description="scores to add: a name, or {name: {path: PATH, option: value}}"
    )
    max_unusable: Probability = Field(
        default=0.01,
        description="share of a reward's scores that may be NaN, infinite or missing before the work stops",
    )

    @model_validator(mode="before")
    @classmethod
    def _show_what_is_missing(cls, value: Any) -> Any:
        # A required section that is absent would hide which of its values are required.
        return {"model": {}, **value} if isinstance(value, dict) and not value.get("sources") else value

    @model_validator(mode="after")
    def _name_models_once(self) -> GenerationRecipe:
        names = [source.name for source in self.sources]
        if self.sources and self.model is not None:
            raise ValueError("sources: bring models of their own; leave the section model out")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"sources: the name '{twice[0]}' is there twice")
        total = sum(source.candidates for source in self.sources)
        if self.sources and "candidates" in self.model_fields_set and self.candidates != total:
            raise ValueError(f"candidates: {self.candidates}, but those of the sources are {total}; leave it out")
        return self

    @model_validator(mode="after")
    def _draw_for_prompts_or_from_a_ground_truth(self) -> GenerationRecipe:
        if (self.prompts is None) == (self.ground_truth is None):
            raise ValueError("prompts: give prompts or a ground_truth to draw from, one of them")
        if self.ground_truth is None:
            return self
        if self.sources:
            raise ValueError("sources: only one model draws from a ground_truth; leave them out")
        if len(self.guidance_scales) > 1:
            raise ValueError("guidance_scales: candidates of a ground_truth differ in noise alone; give one")
        if not 0 < self.strengths[0] <= self.strengths[1]:
            raise ValueError(f"strengths: must be a range in (0, 1], got {self.strengths}")
        return self

    def drawn_by(self, source: DrawnBy) -> GenerationRecipe:
        """Return the recipe of one source alone."""
        own = source.model_dump(exclude={"name", "model", "weights"}, exclude_none=True)
        return self.model_copy(update={**own, "model": source.model, "sources": []})

    def settings(self, family: DenoiserFamily) -> tuple[SamplerSettings, ...]:
        """Return how pictures or clips are drawn, one for each guidance scale.

        Args:
            family: says size, frames and speed where the recipe does not.

        Raises:
            ConfigError: the recipe asks for frames of pictures, or for more than the family takes.
        """
        return tuple(
            SamplerSettings(
                num_inference_steps=self.num_inference_steps,
                guidance_scale=float(scale),
                solver=self.solver,
                resolution=self.resolution,
                batch_size=self.batch_size,
                num_frames=self.num_frames,
                fps=self.fps,
            ).settled(family)
            for scale in self.guidance_scales
        )

    def text_settings(self) -> tuple[TextSettings, ...]:
        """Return how answers are drawn, one for each temperature."""
        return tuple(
            TextSettings(
                max_new_tokens=self.max_new_tokens,
                temperature=float(temperature),
                top_p=float(self.top_p),
                batch_size=self.batch_size,
                chat=self.chat,
            )
            for temperature in self.temperatures
        )
