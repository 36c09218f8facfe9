"""Best of N: draw several pictures of a prompt, score them, return the best.

It works on the components, and on the folders, of stock Stable Diffusion and SDXL pipelines:

    pipe = BestOfNPipeline.from_pretrained(folder_or_hub_id, reward="pickscore")
    pipe = BestOfNPipeline.from_pipe(stock_pipeline, reward=reward)                 # shares the weights
    pipe = DiffusionPipeline.from_pretrained(saved, custom_pipeline=saved, trust_remote_code=True)

The last line needs `save_pretrained` of this class, which puts a ``pipeline.py`` beside the components. diffusers asks
for ``trust_remote_code`` before it runs that file, even though it only imports this one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    SchedulerMixin,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import BaseOutput
from PIL import Image
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffpref import rewards
from diffpref.core.contracts import Reward
from diffpref.core.errors import ConfigError, NonFiniteError, ShapeError, suggest
from diffpref.pipelines import registry
from diffpref.pipelines._saving import SavesItsLoader

__all__ = ["BestOfNOutput", "BestOfNPipeline"]

NUM_CANDIDATES = 4
DECIDED_HERE = frozenset({"num_images_per_prompt", "latents", "prompt_embeds", "pooled_prompt_embeds"})


@dataclass
class BestOfNOutput(BaseOutput):
    """What `BestOfNPipeline` returns.

    Args:
        images: the best picture of each prompt: PIL images, or (P, H, W, 3) float32 in [0, 1].
        scores: of all candidates, N numbers a prompt.
        indices: which candidate was the best, one a prompt; the first of equals.
        seeds: of all candidates, N a prompt. ``generator=torch.Generator().manual_seed(seed)`` makes the stock pipeline
            draw that candidate again.
        candidates: all pictures, N a prompt, where they were asked for.
    """

    images: list[Image.Image] | np.ndarray
    scores: list[list[float]]
    indices: list[int]
    seeds: list[list[int]]
    candidates: list[list[Image.Image]] | None = None


class BestOfNPipeline(SavesItsLoader, DiffusionPipeline):
    """Draws N pictures a prompt with a stock text-to-image pipeline and keeps the one that a reward likes best.

    Args:
        vae: this and the other components are those of ``StableDiffusionPipeline`` or, with a second text encoder, of
            ``StableDiffusionXLPipeline``.
        reward: any diffpref reward, or the name of one. A name is saved with the pipeline, an object is not.
        reward_path: hub id or folder of a named reward's weights.
        reward_options: options of a named reward, such as ``{"device": "cuda"}``.

    Raises:
        ConfigError: an unknown reward, half of a second text encoder, or a path for a reward that is an object.
    """

    registered: ClassVar = "best_of_n"
    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"
    _optional_components: ClassVar = ["text_encoder_2", "tokenizer_2", "safety_checker", "feature_extractor"]
    _exclude_from_cpu_offload: ClassVar = ["safety_checker"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        text_encoder_2: CLIPTextModelWithProjection | None = None,
        tokenizer_2: CLIPTokenizer | None = None,
        safety_checker: Any = None,
        feature_extractor: Any = None,
        requires_safety_checker: bool = False,
        force_zeros_for_empty_prompt: bool = True,
        reward: Reward | str | None = None,
        reward_path: str | None = None,
        reward_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if (text_encoder_2 is None) != (tokenizer_2 is None):
            raise ConfigError("give text_encoder_2 and tokenizer_2, or neither")
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
        )
        name = reward if isinstance(reward, str) else None
        if name is None and (reward_path is not None or reward_options):
            raise ConfigError("reward_path and reward_options belong to a reward that is given by its name")
        if name is not None and name not in rewards.SHORT_FORMS:
            rewards.registry.canonical(name)
        self.register_to_config(
            requires_safety_checker=requires_safety_checker,
            force_zeros_for_empty_prompt=force_zeros_for_empty_prompt,
            reward=name,
            reward_path=reward_path,
            reward_options=dict(reward_options or {}),
        )
        self._reward: Reward | None = None if isinstance(reward, str) else reward

    @property
    def reward(self) -> Reward:
        """The reward that chooses; a named one is loaded on first use.

        Raises:
            ConfigError: there is none.
        """
        if self._reward is None:
            if self.config.reward is None:
                raise ConfigError("no reward: give one to the pipeline (reward=...) or to the call")
            options = dict(self.config.reward_options)
            self._reward = rewards.load(self.config.reward, self.config.reward_path, **options)
        return self._reward

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_candidates: int | None = None,
        seeds: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        reward: Reward | None = None,
        negative_prompt: str | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
        return_candidates: bool = False,
        return_dict: bool = True,
        **options: Any,
    ) -> BestOfNOutput | tuple[Any, ...]:
        """Draw, score, choose.

        Args:
            prompt: one text or several.
            num_candidates: N; as many as seeds are given, else 4.
            seeds: N integers, the same for every prompt. The candidates of a prompt are a function of the prompt, the
                seeds, ``batch_size`` and the options, not of the other prompts.
            generator: draws the seeds where none are given; None takes torch's global one.
            reward: chooses instead of the pipeline's.
            negative_prompt: the same for every prompt.
            batch_size: candidates drawn at once; None takes all N of a prompt.
            output_type: of the chosen images, ``"pil"`` or ``"np"``.
            return_candidates: also return all pictures.
            return_dict: return a `BestOfNOutput`, else a tuple of its fields.
            options: of the stock pipeline's call, such as ``num_inference_steps``, ``guidance_scale`` and ``height``.

        Raises:
            ConfigError: an argument that cannot be meant, or no reward.
            NonFiniteError: a score is not a number.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        stock = self.stock()
        if num_candidates is None:
            num_candidates = NUM_CANDIDATES if seeds is None else len(seeds)
        self.check_inputs(prompts, num_candidates, seeds, generator, batch_size, output_type, options, stock)
        scorer = self.reward if reward is None else reward
        settings = {"negative_prompt": negative_prompt, **options}
        candidates, scores, drawn = [], [], []
        for text in prompts:
            own = _draw_seeds(num_candidates, generator) if seeds is None else [int(seed) for seed in seeds]
            pictures = _draw(stock, text, own, batch_size or num_candidates, settings)
            candidates.append(pictures)
            scores.append(_score(scorer, pictures, text))
            drawn.append(own)
        indices = [max(range(num_candidates), key=row.__getitem__) for row in scores]
        images: Any = [pictures[index] for pictures, index in zip(candidates, indices, strict=True)]
        if output_type == "np":
            images = np.stack([np.asarray(image, dtype=np.float32) / 255 for image in images])
        output = BestOfNOutput(images, scores, indices, drawn, candidates if return_candidates else None)
        return output if return_dict else output.to_tuple()

    def stock(self) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
        """Return the stock pipeline that draws; it shares our components."""
        parts = {name: getattr(self, name) for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
        if self.text_encoder_2 is not None:
            stock = StableDiffusionXLPipeline(
                **parts,
                text_encoder_2=self.text_encoder_2,
                tokenizer_2=self.tokenizer_2,
                force_zeros_for_empty_prompt=self.config.force_zeros_for_empty_prompt,
            )
        else:
            stock = StableDiffusionPipeline(
                **parts,
                safety_checker=self.safety_checker,
                feature_extractor=self.feature_extractor,
                requires_safety_checker=self.config.requires_safety_checker,
            )
        stock.set_progress_bar_config(**getattr(self, "_progress_bar_config", {}))
        return stock

    @staticmethod
    def check_inputs(
        prompts: Sequence[Any],
        num_candidates: int,
        seeds: Sequence[int] | None,
        generator: Any,
        batch_size: int | None,
        output_type: str,
        options: Mapping[str, Any],
        stock: DiffusionPipeline,
    ) -> None:
        """Refuse what cannot be meant; see `__call__`."""
        if not prompts or not all(isinstance(text, str) for text in prompts):
            raise ConfigError(f"prompt: must be a text or a non-empty list of texts, got {prompts!r}")
        if num_candidates < 1:
            raise ConfigError(f"num_candidates: must be at least 1, got {num_candidates}")
        if seeds is not None and generator is not None:
            raise ConfigError("give seeds or a generator that draws them, not both")
        if seeds is not None and len(seeds) != num_candidates:
            raise ConfigError(f"seeds: must be {num_candidates}, one a candidate, got {len(seeds)}")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ConfigError(f"generator: must be one torch.Generator, got {type(generator).__name__}; see seeds")
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size: must be at least 1, got {batch_size}")
        if output_type not in ("pil", "np"):
            raise ConfigError(f"output_type: must be pil or np, got '{output_type}'")
        known = set(inspect.signature(stock.__call__).parameters) - DECIDED_HERE - {"kwargs"}
        for name in options:
            if name not in known:
                raise ConfigError(f"{name}: no option of {type(stock).__name__} that can be set{suggest(name, known)}")


def _draw_seeds(count: int, generator: torch.Generator | None) -> list[int]:
    device = "cpu" if generator is None else generator.device
    return torch.randint(0, 2**63 - 1, (count,), generator=generator, device=device).tolist()


def _draw(stock: Any, prompt: str, seeds: Sequence[int], size: int, options: Mapping[str, Any]) -> list[Image.Image]:
    pictures: list[Image.Image] = []
    for start in range(0, len(seeds), size):
        # on the CPU, whose numbers are the same on every machine
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + size]]
        pictures += stock(prompt, num_images_per_prompt=len(generators), generator=generators, **options).images
    return pictures


def _score(reward: Reward, pictures: Sequence[Image.Image], prompt: str) -> list[float]:
    scores = reward.score(pictures, [prompt] * len(pictures))
    if scores.shape != (len(pictures),):
        raise ShapeError(f"reward '{reward.info.name}' gave {tuple(scores.shape)} scores for {len(pictures)} pictures")
    values = [float(score) for score in scores]
    if not all(map(math.isfinite, values)):
        raise NonFiniteError(f"reward '{reward.info.name}' gave scores that are not finite: {values}")
    return values


if __name__ == "diffpref.pipelines.best_of_n":  # custom_pipeline= runs a copy of a file under another name
    registry.register("best_of_n")(BestOfNPipeline)
