"""Stable Diffusion 3 and 3.5: an SD3Transformer2DModel on a rectified flow, with two CLIP text encoders and a T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, ClassVar

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from diffpref.core.contracts import Conditioning
from diffpref.models import registry
from diffpref.models.family import DenoiserFamily, Network, TextEncoder
from diffpref.models.gates import recompute
from diffpref.models.loading import freeze
from diffpref.models.tiny import tiny_t5, tiny_tokenizer, tiny_vae
from diffpref.schedules import FlowSchedule, Schedule

__all__ = ["StableDiffusion3"]

USUAL_LENGTH = 256
"""Tokens of T5 where nobody says otherwise, as in diffusers' pipeline."""


@registry.register("sd3")
class StableDiffusion3(DenoiserFamily):
    """Conditioning: ``prompt_embeds`` (N, 77 + L, D) and ``pooled_prompt_embeds`` (N, P).

    The last-but-one layers of both CLIP encoders are put beside each other and filled up with zeros to T5's width; T5's
    L tokens follow. Many checkpoints are run without T5, whose tokens are zeros then, as in diffusers. Its own network
    is told the noise level times 1000.
    """

    name = "sd3"
    network_class = SD3Transformer2DModel
    network_part = "transformer"
    text_parts: ClassVar = {
        "text_encoder": (CLIPTokenizer, CLIPTextModelWithProjection),
        "text_encoder_2": (CLIPTokenizer, CLIPTextModelWithProjection),
        "text_encoder_3": (T5TokenizerFast, T5EncoderModel),
    }
    optional_texts = frozenset({"text_encoder_3"})
    lora_targets = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    )
    pipeline_class = StableDiffusion3Pipeline
    default_resolution = 1024
    max_sequence_length: int = USUAL_LENGTH

    @classmethod
    def tiny(cls, seed: int = 0, t5: bool = True) -> StableDiffusion3:
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=8,
            intermediate_size=16,
            projection_dim=6,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        network = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=20,
            caption_projection_dim=16,
            pooled_projection_dim=12,
            pos_embed_max_size=8,
        )
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        texts = [TextEncoder(tokenizer, freeze(CLIPTextModelWithProjection(config))) for _ in range(2)]
        if t5:
            texts.append(TextEncoder(*tiny_t5(20)))
        return cls(
            "tiny",
            FlowSchedule.from_config(scheduler.config),
            {**scheduler.config, "_class_name": type(scheduler).__name__},
            freeze(network),
            freeze(tiny_vae(shift_factor=0.0609)),
            tuple(texts),
            config=dict(network.config),
        )

    @classmethod
    def read_schedule(cls, config: Mapping[str, Any]) -> Schedule:
        return FlowSchedule.from_config(config)

    def schedule_at(self, resolution: int) -> Schedule:
        schedule: Any = self.schedule
        side = resolution // self.vae_factor() // int(self.config["patch_size"])
        return schedule.at(side * side) if schedule.dynamic is not None else schedule

    def settle_length(self, max_sequence_length: int) -> None:
        self.max_sequence_length = max_sequence_length

    @property
    def text_settings(self) -> Mapping[str, Any]:
        return {"max_sequence_length": self.max_sequence_length, "width": self.config["joint_attention_dim"]}

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str], resolution: int) -> Conditioning:
        first, second, *t5 = self._needed("text", self.texts)
        outputs = [e.model(e.tokens(prompts), output_hidden_states=True) for e in (first, second)]
        clip = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        length, width = self.max_sequence_length, int(self.config["joint_attention_dim"])
        long = t5[0].model(t5[0].tokens(prompts, length))[0] if t5 else clip.new_zeros(len(prompts), length, width)
        return Conditioning(
            {
                "prompt_embeds": torch.cat([pad(clip, (0, width - clip.shape[-1])), long], dim=1).float(),
                "pooled_prompt_embeds": torch.cat([output.text_embeds for output in outputs], dim=-1).float(),
            }
        )

    def forward(self, network: Network, inputs: Mapping[str, Tensor], conditioning: Conditioning) -> Tensor:
        told = conditioning.tensors
        noisy, embeds, pooled = self._as_network(
            network, inputs["noisy"], told["prompt_embeds"], told["pooled_prompt_embeds"]
        )
        # in half precision a level of 0.999 is 1
        times = (1000 * inputs["timesteps"]).float()
        return network(
            hidden_states=noisy, encoder_hidden_states=embeds, pooled_projections=pooled, timestep=times
        ).sample

    @staticmethod
    def blocks(network: Network) -> list[nn.Module]:
        return list(network.transformer_blocks)

    def set_checkpointing(self, network: Network, level: bool | str) -> None:
        super().set_checkpointing(network, bool(level))
        if level != "every_second":
            return
        numbers = dict(zip(self.blocks(network), count(), strict=False))

        def every_second(block: nn.Module, *inputs: Any) -> Any:
            return block(*inputs) if numbers[block] % 2 else recompute(block, *inputs)

        network._gradient_checkpointing_func = every_second

    def pipeline(self, network: Network | None = None) -> StableDiffusion3Pipeline:
        first, second, *t5 = self._needed("text", self.texts)
        return StableDiffusion3Pipeline(
            transformer=network or self.network,
            scheduler=self.scheduler(),
            vae=self._needed("vae", self.vae),
            text_encoder=first.model,
            tokenizer=first.tokenizer,
            text_encoder_2=second.model,
            tokenizer_2=second.tokenizer,
            text_encoder_3=t5[0].model if t5 else None,
            tokenizer_3=t5[0].tokenizer if t5 else None,
        )
