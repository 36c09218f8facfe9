"""Inversion: from pictures to the noise that a sampler makes them of, and back, by DDIM, ReNoise or Euler's steps.

It works on the components, and on the folders, of stock Stable Diffusion, SDXL and SD3 pipelines:

    pipe = InversionPipeline.from_pretrained(folder_or_hub_id)
    pipe = InversionPipeline.from_pipe(stock_pipeline)                              # shares the weights
    pipe = DiffusionPipeline.from_pretrained(saved, custom_pipeline=saved, trust_remote_code=True)
    output = pipe(picture, "a red circle above a blue square", num_inference_steps=50)
    output.latents, output.images                                                   # noise, and what comes of it

The last way to load needs `save_pretrained` of this class, which puts a ``pipeline.py`` beside the components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    SchedulerMixin,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5EncoderModel,
    T5TokenizerFast,
)

from diffpref.core.errors import ConfigError
from diffpref.models.family import DenoiserFamily
from diffpref.models.roles import NetworkRole
from diffpref.pipelines import registry
from diffpref.pipelines._parts import checked_side, conditioning_of, family_of, float32_vae, owners_of
from diffpref.pipelines._saving import SavesItsLoader
from diffpref.pipelines._steps import Callback, check_callback, watched
from diffpref.sampling import (
    GuidedRole,
    InversionSettings,
    SamplerSettings,
    invert,
    sample_latents,
    sampling_path,
    sdedit_begin,
)
from diffpref.schedules import Landing, Start, Told, inversion_path, started_at

__all__ = ["InversionOutput", "InversionPipeline"]

FAMILIES = ("sd", "sdxl", "sd3")


@dataclass
class InversionOutput(BaseOutput):
    """What `InversionPipeline` returns.

    Args:
        images: what the sampler makes of the latents: PIL images, (N, H, W, 3) or (N, 3, H, W) in [0, 1], or clean
            latents, as asked; None where none were asked for.
        latents: (N, C, h, w) float32, as noisy as the sampler's step number ``begin`` expects. Those of step 0 are what
            a stock pipeline with the same scheduler, guidance and number of steps takes as ``latents``.
        begin: the first of the sampler's steps to take.
    """

    images: list[Image.Image] | np.ndarray | Tensor | None
    latents: Tensor
    begin: int


class InversionPipeline(SavesItsLoader, DiffusionPipeline):
    """Inverts pictures along the steps of a deterministic sampler, and samples them again.

    Args:
        vae: this and the other components are those of ``StableDiffusionPipeline``, or, with a second text encoder, of
            ``StableDiffusionXLPipeline``, or, with a transformer in place of the UNet, of ``StableDiffusion3Pipeline``.
            What the scheduler's config says of noise and of spacing is used; the steps are DDIM's, of a flow Euler's.
        force_zeros_for_empty_prompt: of SDXL: guide away from zeros where there is no negative prompt.
    """

    registered: ClassVar = "inversion"
    _optional_components: ClassVar = [
        *("unet", "transformer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3"),
    ]
    _callback_tensor_inputs: ClassVar = ["latents"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel | CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        scheduler: SchedulerMixin,
        unet: UNet2DConditionModel | None = None,
        transformer: SD3Transformer2DModel | None = None,
        text_encoder_2: CLIPTextModelWithProjection | None = None,
        tokenizer_2: CLIPTokenizer | None = None,
        text_encoder_3: T5EncoderModel | None = None,
        tokenizer_3: T5TokenizerFast | None = None,
        force_zeros_for_empty_prompt: bool = True,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
            unet=unet,
            transformer=transformer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3,
        )
        self.register_to_config(force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)

    @property
    def guidance_scale(self) -> float:
        """Of the last call."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """How many steps the last call takes in all, up and down."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | np.ndarray | Tensor | Sequence[Any],
        prompt: str | Sequence[str] = "",
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        negative_prompt: str | None = None,
        strength: float = 1.0,
        renoise_steps: int = 1,
        renoise_weights: Sequence[float] | None = None,
        landing: Landing = "exact",
        start: Start = "scheduler",
        told: Told | None = None,
        spacing: str | None = None,
        eta: float = 0.0,
        reconstruct: bool = True,
        height: int | None = None,
        width: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> InversionOutput | tuple[Any, ...]:
        """Invert, and sample again.

        Args:
            image: one square picture or N, as ``VaeImageProcessor`` takes them, bytes too; or (N, C, h, w) clean
                latents. Each is inverted as it would be alone.
            prompt: of all, or one each; inversion is best under the caption of the picture.
            num_inference_steps: of the sampler's grid.
            guidance_scale: on the way up and down; 1 or less runs without. Inversion is accurate without.
            negative_prompt: what guidance leads away from, for all.
            strength: share of the grid to go up and down, rounded as in diffusers' image-to-image pipelines.
            renoise_steps: corrections of each step up, with a call each; 0 is DDIM inversion.
            renoise_weights: of a step's ``renoise_steps + 1`` predictions; None weighs them equally.
            landing: this, ``start``, ``told``, ``spacing`` and ``eta`` are those of
                `diffpref.sampling.InversionSettings`. As they stand, inversion goes up by the sampler's own levels.
            start: see ``landing``.
            told: see ``landing``.
            spacing: see ``landing``.
            eta: see ``landing``; noise that the steps up add, drawn from ``generator``.
            reconstruct: also sample the pictures again.
            height: to which pictures are resized, and width; None leaves them.
            width: see ``height``.
            generator: of the noise that an eta adds; a list has one for each picture.
            output_type: of the images, ``"pil"``, ``"np"``, ``"pt"`` or ``"latent"``.
            return_dict: return an `InversionOutput`, else a tuple of its fields.
            callback_on_step_end: called after each step, up and then down, with the pipeline, the step's number, its
                timestep, and a dict of the tensors asked for; what it returns replaces them.
            callback_on_step_end_tensor_inputs: of ``"latents"``.

        Raises:
            ConfigError: an argument that cannot be meant, or components that do not make a family.
        """
        check_callback(callback_on_step_end, callback_on_step_end_tensor_inputs)
        if output_type not in ("pil", "np", "pt", "latent"):
            raise ConfigError(f"output_type: must be pil, np, pt or latent, got '{output_type}'")
        family = family_of(self, FAMILIES)
        upward = InversionSettings(
            num_steps=num_inference_steps,
            landing=landing,
            eta=eta,
            renoise_steps=renoise_steps,
            renoise_weights=None if renoise_weights is None else tuple(renoise_weights),
            start=start,
            told=told,
            spacing=spacing,
        )
        downward = SamplerSettings(num_inference_steps=num_inference_steps, guidance_scale=guidance_scale)
        clean = self._encode(family, image, height, width)
        count, side = len(clean), clean.shape[-1] * family.vae_factor()
        conditioning, without = conditioning_of(family, prompt, negative_prompt, count, side, clean.device)
        schedule = family.schedule_at(side)
        begin = sdedit_begin(schedule, downward, strength)
        timesteps = sampling_path(schedule, downward)[0]
        top = timesteps[begin].expand(count)
        ups = int(
            inversion_path(started_at(schedule, start), top, num_inference_steps, landing, spacing=spacing).lengths[0]
        )
        self._guidance_scale = guidance_scale
        self._num_timesteps = ups + (len(timesteps) - begin if reconstruct else 0)

        plain = NetworkRole(family, family.network)
        guided = guidance_scale > 1
        role = GuidedRole(plain, without, guidance_scale) if guided else plain
        images: Any = None
        with self.progress_bar(total=self._num_timesteps) as bar:
            asked = (callback_on_step_end, callback_on_step_end_tensor_inputs)
            found = invert(
                role,
                schedule,
                clean,
                top,
                conditioning,
                upward,
                noise=_noise(generator, clean) if eta else None,
                on_step=watched(self, schedule, bar, *asked),
            )
            if reconstruct:
                again = sample_latents(
                    family,
                    plain,
                    found.noisy,
                    conditioning,
                    without,
                    downward,
                    begins=[begin] * count,
                    on_step=watched(self, schedule, bar, *asked, done=ups),
                )
        if reconstruct:
            images = again if output_type == "latent" else self._decode(family, again, output_type)
        self.maybe_free_model_hooks()
        return InversionOutput(images, found.noisy, begin) if return_dict else (images, found.noisy, begin)

    def _processor(self, family: DenoiserFamily) -> VaeImageProcessor:
        return VaeImageProcessor(
            vae_scale_factor=family.vae_factor(), vae_latent_channels=self.vae.config.latent_channels
        )

    def _encode(self, family: DenoiserFamily, image: Any, height: int | None, width: int | None) -> Tensor:
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            image = image.astype(np.float32) / 255
        try:
            pixels = self._processor(family).preprocess(image, height, width)
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise ConfigError(f"image: cannot be read as pictures ({str(error).splitlines()[0]})") from error
        device = self._execution_device
        if pixels.shape[1] == self.vae.config.latent_channels:
            return pixels.to(device, torch.float32)
        checked_side(family, pixels)
        with float32_vae(family):
            return family.encode_media(pixels.to(device)).mean.to(device)

    def _decode(self, family: DenoiserFamily, latents: Tensor, output_type: str) -> Any:
        with float32_vae(family):
            return self._processor(family).postprocess(family.decode_media(latents), output_type)


def _noise(generator: Any, like: Tensor) -> Callable[[int], Tensor]:
    """Return the noise of the steps, a row of it drawn from the generator that the picture has."""
    owners = owners_of(generator, len(like))
    shape = (1, *like.shape[1:])
    return lambda step: torch.cat([randn_tensor(shape, generator=one, device=like.device) for one in owners])


if __name__ == "diffpref.pipelines.inversion":  # custom_pipeline= runs a copy of a file under another name
    registry.register("inversion")(InversionPipeline)
