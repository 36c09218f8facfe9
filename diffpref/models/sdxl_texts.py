"""What SDXL is told, whether it draws pictures or videos: two CLIP text encoders and micro-conditioning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffpref.core.contracts import Conditioning
from diffpref.models.family import DenoiserFamily, Network

__all__ = ["SdxlTexts"]

AESTHETIC_SCORE = 6.0


class SdxlTexts(DenoiserFamily):
    """Conditioning: ``prompt_embeds`` (N, T, D), the last-but-one layers of both encoders side by side;
    ``pooled_prompt_embeds`` (N, P), the projection of the second; ``time_ids`` (N, 6), original height and width, crop
    top and left, target height and width. Diffusion-DPO's code always gives ``(res, res, 0, 0, res, res)``, and so does
    `encode_prompt`; the diffusers script gives the true ones of a pair's first image, which is `size_conditioning`.
    """

    text_parts: ClassVar = {
        "text_encoder": (CLIPTokenizer, CLIPTextModel),
        "text_encoder_2": (CLIPTokenizer, CLIPTextModelWithProjection),
    }
    added_embedding = "text_time"
    size_tensors = frozenset({"time_ids"})
    default_resolution = 1024

    @property
    def is_refiner(self) -> bool:
        """Whether the checkpoint is conditioned on an aesthetic score instead of a target size."""
        return bool(self.settings.get("requires_aesthetics_score", False))

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str], resolution: int) -> Conditioning:
        encoders = self._needed("text", self.texts)
        outputs = [e.model(e.tokens(prompts), output_hidden_states=True) for e in encoders]
        embeds = torch.cat([o.hidden_states[-2] for o in outputs], dim=-1).float()
        uncropped = embeds.new_tensor([[resolution, resolution, 0, 0]]).repeat(len(prompts), 1)
        return Conditioning(
            {
                "prompt_embeds": embeds,
                "pooled_prompt_embeds": outputs[-1].text_embeds.float(),
                **self.size_conditioning(uncropped, resolution),
            }
        )

    def size_conditioning(self, sizes: Tensor, resolution: int) -> dict[str, Tensor]:
        last = [AESTHETIC_SCORE] if self.is_refiner else [resolution, resolution]
        return {"time_ids": torch.cat([sizes.float(), sizes.new_tensor([last]).float().repeat(len(sizes), 1)], dim=1)}

    def ask(
        self, network: Network, inputs: Mapping[str, Tensor], conditioning: Conditioning, num_frames: int = 1
    ) -> Tensor:
        """Ask a denoiser that folds the frames of a clip into its rows, and wants a prompt for each of them."""
        told = conditioning.tensors
        noisy, embeds, pooled = self._as_network(
            network, inputs["noisy"], told["prompt_embeds"], told["pooled_prompt_embeds"]
        )
        # sizes stay float32: in half precision 1023 pixels are 1024
        added = {"text_embeds": pooled, "time_ids": told["time_ids"]}
        each = embeds if num_frames == 1 else embeds.repeat_interleave(num_frames, dim=0)
        return network(noisy, inputs["timesteps"], each, added_cond_kwargs=added).sample
