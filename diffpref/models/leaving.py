"""How what was trained leaves a denoiser family: as LoRA, network or pipeline that diffusers loads without us."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import torch
from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DConditionModel

from diffpref.core.contracts import Tensors
from diffpref.core.errors import ModelError
from diffpref.models.adapters import POLICY
from diffpref.models.base import ModelFamily, Network
from diffpref.models.loading import freeze, load_component
from diffpref.models.peft_files import add_adapter, fold, read_adapter, save_adapter
from diffpref.models.sharding import whole_network

__all__ = ["PeftLeaving", "PipelineFamily"]


class PipelineFamily(ModelFamily):
    """A family whose networks are parts of a stock diffusers pipeline."""

    scheduler_config: Mapping[str, Any]

    hub: ClassVar[Mapping[str, str]] = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    network_class: ClassVar[type[Any]] = UNet2DConditionModel
    network_part: ClassVar[str] = "unet"
    """What the stock pipeline calls the denoiser, and its folder."""
    pipeline_class: ClassVar[type[DiffusionPipeline]]

    def add_lora(self, network: Network, config: Any, name: str) -> None:
        network.add_adapter(config, adapter_name=name)

    def read_lora(self, network: Network, path: str, name: str) -> int:
        pipeline: Any = self.pipeline_class
        prefix = self.network_part
        options = {"unet_config": network.config} if prefix == "unet" else {}
        # diffusers hands on alphas of UNets only
        weights, *alphas, metadata = pipeline.lora_state_dict(
            path, use_safetensors=True, return_lora_metadata=True, **options
        )
        if odd := sorted(key for key in weights if not key.startswith(f"{prefix}.")):
            raise ModelError(f"{path}: adapts more than the denoiser, the first is {odd[0]}; text encoders stay as is")
        told = {"network_alphas": alphas[0] if alphas else None, "metadata": metadata}
        network.load_lora_adapter(weights, prefix=prefix, adapter_name=name, **told)
        return sum(tensor.numel() for tensor in weights.values())

    def save_lora(self, folder: Path, state: Tensors, settings: Mapping[str, Any]) -> None:
        pipeline: Any = self.pipeline_class
        # PEFT's own key names: in diffusers' older ones the attention layers are lost where others are adapted too;
        # without the metadata diffusers takes alpha = rank, and the picture is another one
        part = self.network_part
        named = {f"{part}_lora_layers": dict(state), f"{part}_lora_adapter_metadata": dict(settings)}
        pipeline.save_lora_weights(folder, **named)

    def save_network(self, network: Network, folder: Path, state: Tensors | None) -> None:
        (network if state is None else whole_network(network, state)).save_pretrained(folder)

    def apply(self, path: str, lora: bool) -> None:
        if lora:
            self.pipeline().load_lora_weights(path)
            return
        own = next(self.network.parameters())
        self.network = freeze(load_component(type(self.network), path, "", dtype=own.dtype)).to(own.device)

    def save_whole(self, folder: Path, dtype: torch.dtype, lora: bool) -> None:
        pipeline: Any = self.pipeline()
        if lora:
            pipeline.fuse_lora()
            pipeline.unload_lora_weights()
        pipeline.to(dtype).save_pretrained(folder, safe_serialization=True)

    @classmethod
    def usage(cls, load: str, folder: str) -> str:
        pipeline, network = cls.pipeline_class.__name__, cls.network_class.__name__
        if folder == "lora":
            return (
                f"from diffusers import {pipeline}\n\npipe = {pipeline}.from_pretrained({load})\n"
                f'pipe.load_lora_weights("{folder}")'
            )
        return (
            f"from diffusers import {pipeline}, {network}\n\n"
            f'{cls.network_part} = {network}.from_pretrained("{folder}")\n'
            f"pipe = {pipeline}.from_pretrained({load}, {cls.network_part}={cls.network_part})"
        )

    @abstractmethod
    def pipeline(self, network: Network | None = None) -> DiffusionPipeline:
        """Return the stock diffusers pipeline with our parts, or another denoiser, in it."""

    def scheduler(self) -> SchedulerMixin:
        """Return the checkpoint's own sampler, a scheduler class of diffusers."""
        name = str(self.scheduler_config.get("_class_name", "DDIMScheduler"))
        kind: Any = getattr(diffusers, name, None)
        known = isinstance(kind, type) and issubclass(kind, SchedulerMixin)
        if not known:
            raise ModelError(f"model.path: {self.path} names the scheduler '{name}', which diffusers does not have")
        return kind.from_config({k: v for k, v in self.scheduler_config.items() if not k.startswith("_")})


class PeftLeaving(PipelineFamily):
    """For networks to which diffusers gives no LoRAs: theirs are in PEFT's own files."""

    def add_lora(self, network: Network, config: Any, name: str) -> None:
        add_adapter(network, config, name)

    def read_lora(self, network: Network, path: str, name: str) -> int:
        return read_adapter(network, path, name)

    def save_lora(self, folder: Path, state: Tensors, settings: Mapping[str, Any]) -> None:
        save_adapter(folder, state, settings, self.path, None)

    def apply(self, path: str, lora: bool) -> None:
        if lora:
            self.read_lora(self.network, path, POLICY)
            return
        super().apply(path, lora)

    def save_whole(self, folder: Path, dtype: torch.dtype, lora: bool) -> None:
        if lora:
            fold(self.network)
        super().save_whole(folder, dtype, lora=False)

    @classmethod
    def usage(cls, load: str, folder: str) -> str:
        if folder != "lora":
            return super().usage(load, folder)
        pipeline, part = cls.pipeline_class.__name__, cls.network_part
        return (
            f"from diffusers import {pipeline}\nfrom peft import PeftModel\n\n"
            f"pipe = {pipeline}.from_pretrained({load})\n"
            f'pipe.{part} = PeftModel.from_pretrained(pipe.{part}, "{folder}").merge_and_unload()'
        )
