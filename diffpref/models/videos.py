"""What families of videos share: clips instead of pictures, through a VAE frame by frame, with errors by frame."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from diffpref.core.contracts import Conditioning
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.models.family import DenoiserFamily, Latents, Network, TextEncoder
from diffpref.models.loading import freeze
from diffpref.models.tiny import tiny_scheduler, tiny_vae
from diffpref.schedules import DiscreteSchedule

__all__ = ["VideoFamily"]


@dataclass
class VideoFamily(DenoiserFamily):
    """A denoiser of clips: latents (N, C, F, h, w), one latent frame for each frame of the clip unless a family's VAE
    packs several.

    Args:
        num_frames: of a clip where nobody says otherwise; 16, as in diffusers' pipelines.
        fps: frames a second of a clip where nobody says otherwise; 8, so that 16 frames take two seconds. The
            denoiser is not told.
    """

    num_frames: int = 16
    fps: float = 8.0

    samples: ClassVar[str] = "videos"
    hub: ClassVar[Mapping[str, str]] = {"library_name": "diffusers", "pipeline_tag": "text-to-video"}
    unit_dims: ClassVar[tuple[int, ...]] = (2,)
    lacks: ClassVar[Mapping[str, str]] = {}
    temporal_factor: ClassVar[int] = 1
    """Frames of a clip that the VAE puts into one latent frame."""
    causal: ClassVar[bool] = False
    """Whether the first latent frame holds one frame alone, as in causal VAEs."""

    @classmethod
    def tiny_of(cls, network: Network, *texts: TextEncoder) -> Self:
        """Return a family of clips of three frames around a network of toy size, with a chain and a VAE of its own."""
        scheduler = tiny_scheduler()
        schedule = DiscreteSchedule.from_config(scheduler.config)
        vae, config = freeze(tiny_vae()), dict(network.config)
        return cls("tiny", schedule, dict(scheduler.config), freeze(network), vae, texts, config=config, num_frames=3)

    @property
    def max_frames(self) -> int | None:
        """The most frames that the denoiser takes; None where any number will do."""
        return None

    def native_frames(self) -> int:
        """Return how many frames a clip has unless it is told."""
        return min(self.num_frames, self.max_frames or self.num_frames)

    def check_frames(self, num_frames: int) -> None:
        """Refuse clips that the denoiser cannot take.

        Raises:
            ConfigError: no frames, or more than `max_frames`.
        """
        most = self.max_frames
        if num_frames < 1 or (most is not None and num_frames > most):
            bounds = "at least 1 frame" if most is None else f"1 to {most} frames"
            raise ConfigError(f"num_frames: '{self.name}' from {self.path} takes clips of {bounds}, got {num_frames}")
        factor, first = self.temporal_factor, int(self.causal)
        if (num_frames - first) % factor:
            form = f"{factor} n + 1" if self.causal else f"{factor} n"
            below = num_frames - (num_frames - first) % factor
            near = " and ".join(str(count) for count in (below, below + factor) if count > 0)
            raise ConfigError(
                f"num_frames: the VAE of '{self.name}' takes clips of {form} frames, got {num_frames}; near are {near}"
            )

    def latent_frames(self, num_frames: int) -> int:
        """Return how many latent frames a clip has."""
        return (num_frames - self.causal) // self.temporal_factor + self.causal

    def encode_media(self, clips: Tensor) -> Latents:
        """Encode (N, F, 3, H, W) clips in [-1, 1]; the scaling is read from the VAE's config.

        Returns:
            Mean and std, (N, C, F, h, w) each.

        Raises:
            ShapeError: they are pictures.
            ConfigError: too many frames.
        """
        self._needed("vae", self.vae)
        if clips.dim() != 5:
            raise ShapeError(
                f"'{self.name}' encodes clips (N, F, 3, H, W), got {tuple(clips.shape)}; pictures need a family of"
                " pictures, such as 'sd'"
            )
        self.check_frames(clips.shape[1])
        posterior = super().encode_media(clips.flatten(0, 1))
        return Latents(*(t.unflatten(0, clips.shape[:2]).transpose(1, 2) for t in (posterior.mean, posterior.std)))

    def decode_media(self, latents: Tensor) -> Tensor:
        """Decode (N, C, F, h, w) latents to clips (N, F, 3, H, W) in [-1, 1], clamped."""
        self._needed("vae", self.vae)
        frames = self._checked(latents).transpose(1, 2)
        return super().decode_media(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def latent_shape(self, resolution: int, num_frames: int | None = None) -> tuple[int, ...]:
        count = self.native_frames() if num_frames is None else num_frames
        self.check_frames(count)
        channels, *sides = super().latent_shape(resolution)
        return channels, self.latent_frames(count), *sides

    def forward(self, network: Network, inputs: Mapping[str, Tensor], conditioning: Conditioning) -> Tensor:
        self._checked(inputs["noisy"])
        return self.denoise(network, inputs, conditioning)

    @abstractmethod
    def denoise(self, network: Network, inputs: Mapping[str, Tensor], conditioning: Conditioning) -> Tensor:
        """Ask a denoiser: (N, C, F, h, w) predictions for ``inputs["noisy"]`` and ``inputs["timesteps"]``."""

    def _checked(self, latents: Tensor) -> Tensor:
        if latents.dim() != 5:
            raise ShapeError(f"'{self.name}' takes latents of clips, (N, C, F, h, w), got {tuple(latents.shape)}")
        self.check_frames((latents.shape[2] - self.causal) * self.temporal_factor + self.causal)
        return latents
