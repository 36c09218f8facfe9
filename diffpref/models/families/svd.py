"""Stable Video Diffusion: a picture to a clip, with a UNetSpatioTemporalConditionModel on EDM's noise levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from diffpref.core.assets import resolve
from diffpref.core.contracts import Conditioning, Tensors
from diffpref.core.errors import ShapeError
from diffpref.core.randomness import Random
from diffpref.models import registry
from diffpref.models.family import ALL_PARTS, Network
from diffpref.models.leaving import PeftLeaving
from diffpref.models.loading import freeze, load_component
from diffpref.models.picture_encoder import PictureEncoder
from diffpref.models.precision import DTYPES
from diffpref.models.videos import VideoFamily
from diffpref.schedules import EdmSchedule, Schedule

__all__ = ["StableVideoDiffusion"]

LEAST_GUIDANCE = 1.0
"""Of the first frame, as in diffusers' pipeline; the last frame has the whole."""


@registry.register("svd")
@dataclass
class StableVideoDiffusion(PeftLeaving, VideoFamily):
    """Conditioning: ``image_embeds`` (N, 1, D), CLIP's embedding of the picture; ``image_latents`` (N, C, h, w), the
    mode of the VAE's posterior of the picture with a little noise, *not scaled*; ``added_time_ids`` (N, 3), frames a
    second minus 1, motion bucket, strength of that noise.

    All are of the picture that a clip begins with, and so the same for both sides of a pair. The network is fed the
    noisy latents and, in every frame, the picture's beside them; it predicts the former alone, and so errors are of the
    generated channels alone. Latents are (N, C, F, h, w) here as in every family; the network has frames first.

    diffusers gives this network no LoRAs: they are in PEFT's own files.

    Args:
        reader: what reads the picture besides the VAE.
        fps: frames a second where nobody says otherwise; like the next two the default of diffusers' pipeline.
        motion_bucket_id: how much is to move.
        noise_aug_strength: std of the noise in the picture that the VAE sees.

    Source: Blattmann et al., Stable Video Diffusion, arXiv:2311.15127; diffusers' pipeline for what the paper leaves
    open.
    """

    reader: PictureEncoder | None = None
    fps: float = 7
    motion_bucket_id: float = 127
    noise_aug_strength: float = 0.02

    name = "svd"
    hub: ClassVar[Mapping[str, str]] = {"library_name": "diffusers", "pipeline_tag": "image-to-video"}
    network_class = UNetSpatioTemporalConditionModel
    vae_class = AutoencoderKLTemporalDecoder
    text_parts: ClassVar = {}
    takes_opening = True
    size_tensors = frozenset({"added_time_ids"})
    pipeline_class = StableVideoDiffusionPipeline
    default_resolution = 768

    @classmethod
    def tiny(cls, seed: int = 0) -> StableVideoDiffusion:
        torch.manual_seed(seed)
        network = UNetSpatioTemporalConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),  # their norms have 32 groups
            layers_per_block=1,
            cross_attention_dim=16,
            num_attention_heads=(2, 2),
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            num_frames=3,
        )
        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, sample_size=64
        )
        tower = CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            projection_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=224,  # the stock pipeline knows no other
            patch_size=56,
        )
        scheduler = EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            sigma_min=0.002,
            sigma_max=700.0,
            steps_offset=1,
            timestep_spacing="leading",
            timestep_type="continuous",
            use_karras_sigmas=True,
        )
        return cls(
            "tiny",
            EdmSchedule.from_config(scheduler.config),
            {**scheduler.config, "_class_name": type(scheduler).__name__},
            freeze(network),
            freeze(vae),
            config=dict(network.config),
            reader=PictureEncoder(CLIPImageProcessor(), freeze(CLIPVisionModelWithProjection(tower))),
        )

    @classmethod
    def read_schedule(cls, config: Mapping[str, Any]) -> Schedule:
        return EdmSchedule.from_config(config)

    @classmethod
    def load(cls, path: str, *, parts: Sequence[str] = ALL_PARTS, **options: Any) -> StableVideoDiffusion:
        """Load the asked parts; ``"text"`` is what reads the picture."""
        family = super().load(path, parts=parts, **options)
        assert isinstance(family, StableVideoDiffusion)
        if "text" in parts:
            folder, given = resolve(path), {"allow_pickle": False, **options}
            dtype = DTYPES[given.pop("precision", "fp32")]
            tower = load_component(CLIPVisionModelWithProjection, folder, "image_encoder", dtype=dtype, **given)
            processor = load_component(CLIPImageProcessor, folder, "feature_extractor", revision=given.get("revision"))
            family.reader = PictureEncoder(processor, freeze(tower))
        return family

    @property
    def encoders(self) -> tuple[Network, ...]:
        return () if self.reader is None else (self.reader.model,)

    def drop(self, *parts: str) -> None:
        super().drop(*parts)
        if "text" in parts:
            self.reader = None

    def native_frames(self) -> int:
        return int(self.config.get("num_frames") or self.num_frames)

    def latent_shape(self, resolution: int, num_frames: int | None = None) -> tuple[int, ...]:
        _, *rest = super().latent_shape(resolution, num_frames)
        return int(self.config["out_channels"]), *rest

    # ------------------------------------------------------------ what it is told

    @property
    def text_settings(self) -> Mapping[str, Any]:
        processor = self._needed("text", self.reader).processor
        named = {name: getattr(self, name) for name in ("fps", "motion_bucket_id", "noise_aug_strength")}
        return {**named, "mean": processor.image_mean, "std": processor.image_std}

    def encode_prompt(self, prompts: Sequence[str], resolution: int) -> Conditioning:
        """Return the same row for each prompt, none of which is read: no picture, at the usual rate and motion.

        It is what guidance steers away from. `encode_opening` gives what stands in place of the zeros.
        """
        model = self._needed("text", self.reader).model
        side, channels = resolution // self.vae_factor(), int(self.config["out_channels"])
        told = torch.tensor([self.fps - 1, self.motion_bucket_id, self.noise_aug_strength], device=model.device)
        return Conditioning(
            {
                "image_embeds": told.new_zeros((len(prompts), 1, int(model.config.projection_dim))),
                "image_latents": told.new_zeros((len(prompts), channels, side, side)),
                "added_time_ids": told.repeat(len(prompts), 1),  # one less than the rate, as the network was trained
            }
        )

    @torch.no_grad()
    def encode_opening(self, images: Tensor, resolution: int, noise: Tensor | None = None) -> Tensors:
        """Return ``image_embeds`` and ``image_latents`` of pictures, exactly as the stock pipeline makes them.

        Args:
            images: (N, 3, R, R) in [-1, 1].
            resolution: R, pixels.
            noise: (N, 3, R, R) standard normal, of which a little is added to what the VAE sees; None: a function of
                the picture, so that whoever shows it, and whenever, sees the same.

        Raises:
            ShapeError: they are no pictures of that size.
        """
        reader, vae = self._needed("text", self.reader), self._needed("vae", self.vae)
        if images.shape[1:] != (3, resolution, resolution):
            raise ShapeError(
                f"'{self.name}' begins with pictures (N, 3, {resolution}, {resolution}), got {tuple(images.shape)}"
            )
        noise = self._own_noise(images) if noise is None else noise
        noised = (images + self.noise_aug_strength * noise.to(images)).to(vae.device, torch.float32)
        parts = noised.split(self._media_rows(resolution**2))
        return {
            "image_embeds": reader.embed(images).float().unsqueeze(1),
            "image_latents": torch.cat([vae.encode(part).latent_dist.mode() for part in parts]),
        }

    @staticmethod
    def _own_noise(images: Tensor) -> Tensor:
        keys = [(blake2b(image.cpu().numpy().tobytes(), digest_size=16).hexdigest(),) for image in images]
        return Random(0).normal("noise of an opening", keys, tuple(images.shape[1:]))

    # ------------------------------------------------------------ the denoiser

    def denoise(self, network: Network, inputs: Mapping[str, Tensor], conditioning: Conditioning) -> Tensor:
        told, schedule = conditioning.tensors, self.schedule
        assert isinstance(schedule, EdmSchedule)
        noisy, picture, embeds = self._as_network(network, inputs["noisy"], told["image_latents"], told["image_embeds"])
        if picture.shape[-2:] != noisy.shape[-2:]:
            raise ShapeError(
                f"'{self.name}': a clip's latents are {tuple(noisy.shape[-2:])} and its picture's"
                f" {tuple(picture.shape[-2:])}; both must have one resolution"
            )
        frames = noisy.transpose(1, 2)
        beside = picture.unsqueeze(1).expand(-1, frames.shape[1], -1, -1, -1)
        # in half precision the numbers would be others
        times, ids = schedule.network_time(inputs["timesteps"]).float(), told["added_time_ids"].float()
        return network(torch.cat([frames, beside], dim=2), times, embeds, ids).sample.transpose(1, 2)

    @torch.no_grad()
    def decode_media(self, latents: Tensor) -> Tensor:
        """Decode (N, C, F, h, w) latents to clips (N, F, 3, H, W) in [-1, 1], clamped.

        A clip is decoded as a whole, because the decoder looks at neighbouring frames.
        """
        vae = self._needed("vae", self.vae)
        _, scale = self._scaling(vae)
        frames = self._checked(latents).transpose(1, 2).to(vae.device, torch.float32) / scale
        return torch.stack([vae.decode(clip, num_frames=len(clip)).sample for clip in frames]).clamp(-1, 1)

    @staticmethod
    def _scaling(vae: Network) -> tuple[float, float]:
        return 0.0, vae.config.scaling_factor  # the pipeline knows no shift

    # ------------------------------------------------------------ sampling

    def opening_noise(self, resolution: int, generator: torch.Generator) -> Tensor:
        """Return the noise (3, R, R) of the picture, which the stock pipeline draws before the latents'."""
        return torch.randn((1, 3, resolution, resolution), generator=generator)[0]

    def initial_noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        channels, num_frames, *sides = shape
        self.opening_noise(sides[-1] * self.vae_factor(), generator)
        return torch.randn((1, num_frames, channels, *sides), generator=generator)[0].transpose(0, 1)

    def guidance(self, scale: float, latents: Tensor) -> Tensor:
        """Return (1, 1, F, 1, 1): it rises from the first frame, which the picture gives, to the last."""
        return torch.linspace(LEAST_GUIDANCE, scale, latents.shape[2]).to(latents).view(1, 1, -1, 1, 1)

    def pipeline(self, network: Network | None = None) -> StableVideoDiffusionPipeline:
        reader = self._needed("text", self.reader)
        return StableVideoDiffusionPipeline(
            vae=self._needed("vae", self.vae),
            image_encoder=reader.model,
            unet=network or self.network,
            scheduler=self.scheduler(),
            feature_extractor=reader.processor,
        )
