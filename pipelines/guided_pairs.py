"""Guided pairs: two clips with the motion of a third, which differ in detail, as DenseDPO's preferences are judged.

A clip is noised part of the way twice, to the same level with two noises, and each is denoised from there. It works on
the components, and on the folders, of diffusers' ``TextToVideoSDPipeline``, ``AnimateDiffPipeline`` and
``AnimateDiffSDXLPipeline``:

    pipe = GuidedPairsPipeline.from_pretrained(folder_or_hub_id)
    pipe = GuidedPairsPipeline.from_pipe(stock_pipeline)                            # shares the weights
    pipe = DiffusionPipeline.from_pretrained(saved, custom_pipeline=saved, trust_remote_code=True)
    first, second = pipe(clip, "a red circle moves left").frames[0]

The last way to load needs `save_pretrained` of this class, which puts a ``pipeline.py`` beside the components. For a
whole data set of pairs, `diffpref generate` takes ``ground_truth``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin, UNet3DConditionModel, UNetMotionModel
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffpref.core.contracts import Clip
from diffpref.core.errors import ConfigError
from diffpref.models.family import DenoiserFamily
from diffpref.models.roles import NetworkRole
from diffpref.pipelines import registry
from diffpref.pipelines._parts import checked_side, conditioning_of, family_of, float32_vae, owners_of
from diffpref.pipelines._saving import SavesItsLoader
from diffpref.pipelines._steps import Callback, check_callback, watched
from diffpref.sampling import Beginning, SamplerSettings, noised_to, sample_latents, sdedit_begin

__all__ = ["GuidedPairsOutput", "GuidedPairsPipeline"]

FAMILIES = ("unet3d", "animatediff", "animatediff_sdxl")


@dataclass
class GuidedPairsOutput(BaseOutput):
    """What `GuidedPairsPipeline` returns.

    Args:
        frames: N pairs of clips: lists of PIL images, an array (N, 2, F, H, W, 3) or a tensor (N, 2, F, 3, H, W) in
            [0, 1], or clean latents (N, 2, C, F, h, w), as asked.
        strengths: N numbers, how much of each clip was replaced by noise.
    """

    frames: list[list[list[Any]]] | np.ndarray | Tensor
    strengths: list[float]


class GuidedPairsPipeline(SavesItsLoader, DiffusionPipeline):
    """Draws pairs of clips from clips.

    Args:
        vae: this and the other components are those of ``TextToVideoSDPipeline`` or ``AnimateDiffPipeline``, whose
            motion adapter is in its UNet already, or, with a second text encoder, of ``AnimateDiffSDXLPipeline``. What
            the scheduler's config says of noise and of spacing is used; the steps are those of ``solver``.
        force_zeros_for_empty_prompt: of SDXL: guide away from zeros where there is no negative prompt.
    """

    registered: ClassVar = "guided_pairs"
    _optional_components: ClassVar = ["text_encoder_2", "tokenizer_2"]
    _callback_tensor_inputs: ClassVar = ["latents"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet3DConditionModel | UNetMotionModel,
        scheduler: SchedulerMixin,
        text_encoder_2: CLIPTextModelWithProjection | None = None,
        tokenizer_2: CLIPTokenizer | None = None,
        force_zeros_for_empty_prompt: bool = True,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
        )
        self.register_to_config(force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)

    @property
    def guidance_scale(self) -> float:
        """Of the last call."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """How many steps the last call takes: those of the pair that is noised most."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(
        self,
        video: Any,
        prompt: str | Sequence[str],
        strength: float | tuple[float, float] = (0.65, 0.8),
        num_inference_steps: int = 40,
        guidance_scale: float = 8.0,
        negative_prompt: str | None = None,
        num_pairs_per_prompt: int = 1,
        beginning: Beginning = "dense_dpo",
        solver: Literal["ddim", "dpmpp_2m"] = "ddim",
        height: int | None = None,
        width: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> GuidedPairsOutput | tuple[Any, ...]:
        """Noise, and denoise twice.

        Args:
            video: one clip of square frames or several of equal length, as ``VideoProcessor`` takes them, bytes and
                `Clip` too.
            prompt: what they show, of all or one each.
            strength: share of the trajectory; a range: drawn from it, one number a pair. At 1 the pair has nothing of
                the clip.
            num_inference_steps: of the whole trajectory.
            guidance_scale: 1 or less runs without.
            negative_prompt: what guidance leads away from, for all.
            num_pairs_per_prompt: pairs of each clip, beside each other in the output.
            beginning: how a strength is read; see `diffpref.sampling.sdedit_begin`.
            solver: ``"ddim"`` or ``"dpmpp_2m"``.
            height: to which frames are resized, and width; None leaves them.
            width: see ``height``.
            generator: draws a pair's strength, where that is a range, and then its first and its second noise; a list
                has one for each pair, which is then what it would be alone.
            output_type: of the frames, ``"np"``, ``"pil"``, ``"pt"`` or ``"latent"``.
            return_dict: return a `GuidedPairsOutput`, else a tuple of its fields.
            callback_on_step_end: called after each step with the pipeline, the step's number, its timestep, and a dict
                of the tensors asked for, two rows a pair; what it returns replaces them.
            callback_on_step_end_tensor_inputs: of ``"latents"``.

        Raises:
            ConfigError: an argument that cannot be meant, or components that do not make a family.

        Source: Wu et al., DenseDPO, arXiv:2506.03517, appendix; its 40 steps, guidance 8 and strengths from 0.65 to
        0.8 are the defaults.
        """
        check_callback(callback_on_step_end, callback_on_step_end_tensor_inputs)
        if output_type not in ("np", "pil", "pt", "latent"):
            raise ConfigError(f"output_type: must be np, pil, pt or latent, got '{output_type}'")
        if num_pairs_per_prompt < 1:
            raise ConfigError(f"num_pairs_per_prompt: must be at least 1, got {num_pairs_per_prompt}")
        family = family_of(self, FAMILIES)
        settings = SamplerSettings(num_inference_steps, guidance_scale, solver)
        clean = self._encode(family, video, height, width)
        side, rows = clean.shape[-1] * family.vae_factor(), 2 * num_pairs_per_prompt
        conditioning, without = conditioning_of(family, prompt, negative_prompt, len(clean), side, clean.device)
        each = [row for row in range(len(clean)) for _ in range(rows)]
        schedule = family.schedule_at(side)
        strengths, noise = _draw(generator, strength, clean, num_pairs_per_prompt)
        begins = [b for one in strengths for b in [sdedit_begin(schedule, settings, one, beginning)] * 2]
        self._guidance_scale, self._num_timesteps = guidance_scale, num_inference_steps - min(begins)
        with self.progress_bar(total=self._num_timesteps) as bar:
            latents = sample_latents(
                family,
                NetworkRole(family, family.network),
                noised_to(schedule, settings, clean[each], noise, begins),
                conditioning.take(each),
                without,
                settings,
                begins=begins,
                on_step=watched(self, schedule, bar, callback_on_step_end, callback_on_step_end_tensor_inputs),
            )
        frames = self._decode(family, latents, output_type)
        self.maybe_free_model_hooks()
        return GuidedPairsOutput(frames, strengths) if return_dict else (frames, strengths)

    def _encode(self, family: DenoiserFamily, video: Any, height: int | None, width: int | None) -> Tensor:
        try:
            clips = VideoProcessor(vae_scale_factor=family.vae_factor()).preprocess_video(_plain(video), height, width)
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise ConfigError(f"video: cannot be read as clips ({str(error).splitlines()[0]})") from error
        checked_side(family, clips)
        device = self._execution_device
        with float32_vae(family):
            return family.encode_media(clips.transpose(1, 2).to(device)).mean.to(device)

    def _decode(self, family: DenoiserFamily, latents: Tensor, output_type: str) -> Any:
        if output_type == "latent":
            return latents.unflatten(0, (-1, 2))
        with float32_vae(family):
            clips = family.decode_media(latents).transpose(1, 2)
        frames = VideoProcessor(vae_scale_factor=family.vae_factor()).postprocess_video(clips, output_type)
        if output_type == "pil":
            return [list(pair) for pair in zip(frames[::2], frames[1::2], strict=True)]
        return frames.reshape(-1, 2, *frames.shape[1:])


def _plain(video: Any) -> Any:
    """Return clips in the forms that diffusers knows: `Clip` unpacked, bytes as fractions."""
    if isinstance(video, Clip):
        return _plain(video.frames)
    if isinstance(video, list | tuple):
        return [_plain(one) for one in video]
    return video.astype(np.float32) / 255 if isinstance(video, np.ndarray) and video.dtype == np.uint8 else video


def _draw(generator: Any, strength: Any, clean: Tensor, pairs: int) -> tuple[list[float], Tensor]:
    """Return a strength for each pair, and noise (2 P, ...) for its two members."""
    low, high = strength if isinstance(strength, tuple | list) else (strength, strength)
    if not 0 < low <= high <= 1:
        raise ConfigError(f"strength: must be a number or a range in (0, 1], got {strength}")
    strengths, noise = [], []
    for owner in owners_of(generator, len(clean) * pairs):
        drawn = 0.0
        if low < high:
            device = "cpu" if owner is None else owner.device
            drawn = float(torch.rand((), generator=owner, device=device, dtype=torch.float64))
        strengths.append(low + (high - low) * drawn)
        noise += [randn_tensor((1, *clean.shape[1:]), generator=owner, device=clean.device) for _ in range(2)]
    return strengths, torch.cat(noise)


if __name__ == "diffpref.pipelines.guided_pairs":  # custom_pipeline= runs a copy of a file under another name
    registry.register("guided_pairs")(GuidedPairsPipeline)
