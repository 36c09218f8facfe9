"""What a denoiser family promises, and what latent UNet families share.

A family knows how to load its networks, how to encode prompts and images, and how to ask its denoiser. It knows no
objective and no method. A new family is one file in ``families/``: a subclass with the text side and `forward`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from diffpref.core.assets import resolve
from diffpref.core.contracts import Conditioning, Rows, Tensors
from diffpref.core.errors import ConfigError, ShapeError
from diffpref.likelihood.denoising import NO_FRAMES
from diffpref.models.base import Network
from diffpref.models.gates import recompute
from diffpref.models.leaving import PipelineFamily
from diffpref.models.loading import check_kind, check_vocabulary, freeze, load_component, load_settings
from diffpref.models.precision import DTYPES
from diffpref.schedules import Density, DiscreteSchedule, FlowSchedule, Schedule

if TYPE_CHECKING:  # networks are used where no recipe is read
    from diffpref.config import Likelihood as LikelihoodSettings

__all__ = ["ALL_PARTS", "DenoiserFamily", "Latents", "Network", "TextEncoder"]

ALL_PARTS = ("network", "vae", "text")
PIXELS_AT_ONCE = 1024 * 1024  # through the VAE, whose activations at 1024 x 1024 already fill gigabytes


@dataclass(frozen=True)
class Latents:
    """The posterior of encoded images, already scaled: mean and std, (N, C, H, W) float32 each; (N, C, F, H, W) of
    videos."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer and its encoder."""

    tokenizer: Any
    model: Network

    def tokens(self, prompts: Sequence[str], length: int | None = None) -> Tensor:
        """Return (N, T) token ids, padded and truncated to a length, by default the encoder's own."""
        encoded = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=length or self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return encoded.input_ids.to(self.model.device)


@dataclass
class DenoiserFamily(PipelineFamily):
    """Networks of one kind. Parts that were not asked for are None.

    Args:
        path: where they come from.
        schedule: alpha, sigma and the conversions of the prediction type, from the checkpoint's scheduler config.
        scheduler_config: the checkpoint's, for the stock pipeline.
        network: the denoiser.
        vae: always float32; SDXL's overflows in half precision.
        texts: tokenizers with their encoders, in the order in which the pipeline names them.
        config: the denoiser's, known even where it is not loaded.
        settings: the pipeline's own, from ``model_index.json``.
        density: where on the path training draws timesteps.
        resolution: side in pixels of what a run trains on; None: `native_resolution`.
    """

    path: str
    schedule: Schedule
    scheduler_config: Mapping[str, Any]
    network: Network = None
    vae: Any = None
    texts: tuple[TextEncoder, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    revision: str | None = None
    density: Density = field(default_factory=Density)
    resolution: int | None = None

    likelihood: ClassVar[str] = "denoising"
    samples: ClassVar[str] = "images"
    vae_class: ClassVar[type[Any]] = AutoencoderKL
    text_parts: ClassVar[Mapping[str, tuple[type[Any], type[Any]]]]
    added_embedding: ClassVar[str | None] = None
    optional_texts: ClassVar[frozenset[str]] = frozenset()
    """Text parts that a checkpoint may lack without saying so."""
    takes_opening: ClassVar[bool] = False
    """Whether the denoiser is told a picture: the one that belongs to the prompt, else the first frame."""
    size_tensors: ClassVar[frozenset[str]] = frozenset()
    """Conditioning that tells sizes and not what the prompt says: it stays where the prompt is dropped."""
    lora_targets: Sequence[str] = ("to_q", "to_k", "to_v", "to_out.0")
    default_resolution: ClassVar[int]
    unit_dims: ClassVar[tuple[int, ...]] = ()
    """Dimensions of a prediction that are frames."""
    lacks = NO_FRAMES

    # ------------------------------------------------------------ loading

    @classmethod
    def load(
        cls,
        path: str,
        *,
        parts: Sequence[str] = ALL_PARTS,
        precision: str = "fp32",
        revision: str | None = None,
        variant: str | None = None,
        allow_pickle: bool = False,
    ) -> DenoiserFamily:
        """Load the asked parts from a diffusers pipeline folder or hub id.

        Args:
            path: folder, hub id, or ``bundled:shapes-sdxl``.
            parts: of ``"network" "vae" "text"``. A denoiser alone is the normal case once everything is cached.
            precision: ``fp32``, ``bf16`` or ``fp16``: the dtype of network and text encoders.
            revision: branch, tag or commit on the hub.
            variant: weight variant, such as ``"fp16"``.
            allow_pickle: also accept pickled weights.

        Raises:
            ModelError: the path holds no such model, or only pickled weights.
        """
        folder = resolve(path)
        options: dict[str, Any] = {"revision": revision, "variant": variant, "allow_pickle": allow_pickle}
        settings = load_settings(folder, "", "model_index.json", revision=revision)
        scheduler = load_settings(folder, "scheduler", "scheduler_config.json", revision=revision)
        config = load_settings(folder, cls.network_part, "config.json", revision=revision)
        cls.check(path, config)
        family = cls(path, cls.read_schedule(scheduler), scheduler, config=config, settings=settings, revision=revision)
        dtype = DTYPES[precision]
        if "network" in parts:
            network = load_component(cls.network_class, folder, cls.network_part, dtype=dtype, **options)
            family.network = freeze(network)
        if "vae" in parts:
            family.vae = freeze(load_component(cls.vae_class, folder, "vae", dtype=torch.float32, **options))
        if "text" in parts:
            present = [name for name in cls.text_parts if cls._has_text(settings, name)]
            family.texts = tuple(cls._load_text(folder, name, dtype=dtype, **options) for name in present)
        return family

    @classmethod
    def check(cls, path: str, config: Mapping[str, Any]) -> None:
        """Refuse a denoiser of another kind.

        Raises:
            ModelError: its class, or what it is told besides a prompt, is another family's.
        """
        check_kind(path, config, cls.name, cls.network_class.__name__, cls.added_embedding)

    @classmethod
    def read_schedule(cls, config: Mapping[str, Any]) -> Schedule:
        """Return the noise schedule that a checkpoint's scheduler config describes."""
        return DiscreteSchedule.from_config(config)

    @classmethod
    def _has_text(cls, settings: Mapping[str, Any], name: str) -> bool:
        """Whether a checkpoint has a text part: one that its index names as null it does without."""
        return settings.get(name, [None, None] if name in cls.optional_texts else None) != [None, None]

    @classmethod
    def _load_text(cls, folder: str, name: str, **options: Any) -> TextEncoder:
        part = name.replace("text_encoder", "tokenizer")
        tokenizer_class, model_class = cls.text_parts[name]
        tokenizer = load_component(tokenizer_class, folder, part, revision=options["revision"])
        model = freeze(load_component(model_class, folder, name, **options))
        check_vocabulary(folder, part, len(tokenizer), model.get_input_embeddings().num_embeddings)
        return TextEncoder(tokenizer, model)

    @classmethod
    @abstractmethod
    def tiny(cls, seed: int = 0) -> DenoiserFamily:
        """Return real classes with random weights at toy size, for tests."""

    def to(self, device: torch.device | str) -> DenoiserFamily:
        """Move every loaded part to a device."""
        for module in (self.network, self.vae, *self.encoders):
            if module is not None:
                module.to(device)
        return self

    def drop(self, *parts: str) -> None:
        """Forget parts that are no longer needed, so that their memory is free."""
        for part in parts:
            setattr(self, {"text": "texts"}.get(part, part), () if part == "text" else None)

    # ------------------------------------------------------------ encoding

    @abstractmethod
    def encode_prompt(self, prompts: Sequence[str], resolution: int) -> Conditioning:
        """Return a row for each prompt: exactly the tensors that the stock pipeline makes.

        Args:
            prompts: N texts.
            resolution: of the images, pixels; families with micro-conditioning write it into their rows.
        """

    @property
    def zero_unconditional(self) -> bool:
        """Whether the checkpoint's pipeline guides away from zeros instead of the empty prompt."""
        return bool(self.settings.get("force_zeros_for_empty_prompt", False))

    def unconditional(self, resolution: int) -> Conditioning:
        """Return the one row that guidance steers away from where no negative prompt is given.

        It is what the stock pipeline uses: the empty prompt, or zeros for checkpoints whose ``model_index.json`` sets
        ``force_zeros_for_empty_prompt`` (SDXL's base does). Micro-conditioning is kept. Caption dropout in training
        shows the *encoded* empty prompt, as published.
        """
        empty = self.encode_prompt([""], resolution)
        if not self.zero_unconditional:
            return empty
        return empty.zeros(keep=self.size_tensors)

    def size_conditioning(self, sizes: Tensor, resolution: int) -> Tensors:
        """Return what the denoiser is told of sizes; nothing where it is told none.

        Args:
            sizes: (N, 4): original height and width, top and left of the crop.
            resolution: of the square image, pixels.
        """
        return {}

    @property
    def encoders(self) -> tuple[Network, ...]:
        """What `encode_prompt` and `encode_opening` ask besides the VAE."""
        return tuple(text.model for text in self.texts)

    def encode_opening(self, images: Tensor, resolution: int, noise: Tensor | None = None) -> Tensors:
        """Return what the denoiser is told of a picture, rows by name; for families that say `takes_opening`.

        They are the same for all candidates of a record, and take the place of the rows of these names that
        `encode_prompt` makes, which say that there is no picture and are what stays where a prompt is dropped.

        Args:
            images: (N, 3, R, R) in [-1, 1].
            resolution: R, pixels.
            noise: (N, 3, R, R) standard normal, of which some pipelines add a little; None: a function of the picture.
        """
        return {}

    def opening_noise(self, resolution: int, generator: torch.Generator) -> Tensor | None:
        """Return the noise (3, R, R) that the stock pipeline draws for a picture, None where it draws none."""
        return None

    @torch.no_grad()
    def encode_media(self, images: Tensor) -> Latents:
        """Encode (N, 3, H, W) images in [-1, 1]; the scaling is read from the VAE's config.

        Raises:
            ShapeError: they are no images: a video, for instance.
        """
        vae = self._needed("vae", self.vae)
        if images.dim() != 4:
            raise ShapeError(
                f"'{self.name}' encodes images (N, 3, H, W), got {tuple(images.shape)}; videos need a family of videos"
            )
        shift, scale = self._scaling(vae)
        parts = [
            vae.encode(part.to(vae.device, torch.float32)).latent_dist
            for part in images.split(self._media_rows(images.shape[-2:].numel()))
        ]
        mean, std = torch.cat([part.mean for part in parts]), torch.cat([part.std for part in parts])
        return Latents((mean - shift) * scale, std * scale)

    @torch.no_grad()
    def decode_media(self, latents: Tensor) -> Tensor:
        """Decode (N, C, H, W) latents to images (N, 3, H, W) in [-1, 1], clamped."""
        vae = self._needed("vae", self.vae)
        shift, scale = self._scaling(vae)
        rows = self._media_rows(latents.shape[-2:].numel() * self.vae_factor() ** 2)
        parts = [vae.decode(part.to(vae.device, torch.float32) / scale + shift).sample for part in latents.split(rows)]
        return torch.cat(parts).clamp(-1, 1)

    @staticmethod
    def _scaling(vae: Network) -> tuple[float, float]:
        return vae.config.get("shift_factor") or 0.0, vae.config.scaling_factor

    @staticmethod
    def _media_rows(pixels: int) -> int:
        return max(1, PIXELS_AT_ONCE // pixels)

    # ------------------------------------------------------------ the denoiser

    @abstractmethod
    def forward(self, network: Network, inputs: Mapping[str, Tensor], conditioning: Conditioning) -> Tensor:
        """Ask a denoiser: (N, C, H, W) predictions for ``inputs["noisy"]`` and ``inputs["timesteps"]``."""

    @staticmethod
    def _as_network(network: Network, *tensors: Tensor) -> list[Tensor]:
        """Return tensors in the dtype of a network's own weights (an adapter's are float32 whatever the network)."""
        dtype = next(network.parameters()).dtype
        return [tensor.to(dtype) for tensor in tensors]

    def answer(
        self, network: Network, rows: Rows, wanted: frozenset[str] = frozenset(), trained: bool = False
    ) -> dict[str, Tensor]:
        return {"prediction": self.forward(network, rows.inputs, rows.conditioning)}

    def place(self, timesteps: Tensor) -> Tensor:
        return self.schedule.place(timesteps)

    def sample_timesteps(self, u: Tensor) -> Tensor:
        """Turn (N,) uniform numbers into (N,) timesteps: of a chain int64, of a flow noise levels."""
        return self.schedule.draw(self.density(u))

    def schedule_at(self, resolution: int) -> Schedule:
        """Return the schedule of square pictures of a size, in pixels: of some flows the shift depends on it."""
        return self.schedule

    def settle_path(self, settings: LikelihoodSettings, resolution: int | None) -> None:
        self.resolution = resolution
        flow = isinstance(self.schedule, FlowSchedule)
        if flow:
            self.schedule = self.schedule_at(resolution or self.native_resolution())
        kind = settings.timesteps
        kind = ("logit_normal" if flow else "uniform") if kind == "auto" else kind
        self.density = Density(kind, settings.logit_mean, settings.logit_std, settings.mode_scale)

    @property
    def text_settings(self) -> Mapping[str, Any]:
        """What besides the encoders and the prompt decides on what `encode_prompt` returns."""
        return {}

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the noised latents, (N, C, H, W)."""
        return self.schedule.add_noise(clean, noise, timesteps)

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the network is to predict, by the checkpoint's prediction type."""
        return self.schedule.target(clean, noise, timesteps)

    def native_resolution(self) -> int:
        """Return the side in pixels of the square pictures that the denoiser was made for."""
        size = self.config.get("sample_size") or getattr(getattr(self.network, "config", None), "sample_size", None)
        return int(size) * self.vae_factor() if size else self.default_resolution

    def vae_factor(self) -> int:
        """Return how many pixels a side of a latent cell spans; known even where the VAE is not loaded."""
        if self.vae is not None:
            return 2 ** (len(self.vae.config.block_out_channels) - 1)
        config = load_settings(resolve(self.path), "vae", "config.json", revision=self.revision)
        return 2 ** (len(config["block_out_channels"]) - 1)

    def latent_shape(self, resolution: int, num_frames: int | None = None) -> tuple[int, ...]:
        """Return (C, H, W) of the latents of a square image, or (C, F, H, W) of a video.

        Args:
            resolution: pixels.
            num_frames: of the video; None: as many as the family usually makes.

        Raises:
            ConfigError: frames of an image, or more than the network takes.
        """
        if num_frames is not None:
            raise ConfigError(f"num_frames: '{self.name}' makes images, which have none; leave it out")
        network = self._needed("network", self.network)
        side = resolution // self.vae_factor()
        return network.config.in_channels, side, side

    def sample_shape(self) -> tuple[int, ...]:
        """Return the shape of the latents of one sample of a run, whose path `settle_path` settled."""
        return self.latent_shape(self.resolution or self.native_resolution())

    def initial_noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return standard normal latents of a shape, drawn as the stock pipeline draws its first ones."""
        return torch.randn((1, *shape), generator=generator)[0]

    def guidance(self, scale: float, latents: Tensor) -> float | Tensor:
        """Return what the difference of the told and the untold prediction is multiplied by."""
        return scale

    @staticmethod
    def blocks(network: Network) -> list[nn.Module]:
        """Return the repeated blocks: what to shard, to checkpoint, to compile."""
        return [*network.down_blocks, network.mid_block, *network.up_blocks]

    def set_checkpointing(self, network: Network, level: bool | str) -> None:
        if not level:
            network.disable_gradient_checkpointing()
            return
        network.enable_gradient_checkpointing(recompute)
        if level == "every_second":
            others: list[Network] = [module for block in self.blocks(network)[1::2] for module in block.modules()]
            for module in others:
                if hasattr(module, "gradient_checkpointing"):
                    module.gradient_checkpointing = False

    @staticmethod
    def _needed(part: str, value: Any) -> Any:
        if value is None or value == ():
            raise ConfigError(f"the family's '{part}' is not loaded; load it with parts=(..., '{part}')")
        return value
