"""A CLIP model as a reward model: its towers are trained, wholly, by a LoRA or from some layer on.

The score is the cosine of picture and prompt times the model's logit scale, as in PickScore and HPS v2; an objective
that asks for more, or a recipe, puts a head on the features instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from diffpref.core.assets import resolve
from diffpref.core.contracts import Conditioning, Rows, Tensors
from diffpref.core.errors import ConfigError
from diffpref.models import registry
from diffpref.models.base import Network
from diffpref.models.clip_towers import image_features, load_network, load_words, text_features
from diffpref.models.peft_files import add_adapter, fold, read_adapter, save_adapter
from diffpref.models.precision import DTYPES
from diffpref.models.recompute import checkpoint_layers
from diffpref.models.reward_head import RewardHead, load_reward_head
from diffpref.models.scorer import ScorerFamily

__all__ = ["ClipScorer", "TwoTowers"]

POLICY = "default"


class TwoTowers(nn.Module):
    """A CLIP model that is asked for scores; what is wrapped where several processes train.

    Args:
        network: a ``CLIPModel`` of transformers.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, media: Tensor, ids: Tensor, mask: Tensor, head: RewardHead | None = None) -> dict[str, Tensor]:
        """Return ``score`` (N,), or what a head says.

        Args:
            media: (N, F, 3, S, S) pixels.
            ids: (N, T) tokens.
            mask: (N, T), 0 at padding.
            head: takes the place of the cosine.
        """
        image, text = image_features(self.network, media), text_features(self.network, ids, mask)
        if head is not None:  # the cosine's scale belongs to the graph still, as DDP asks of whatever is trained
            return head(image + 0.0 * self.network.logit_scale, text)
        with torch.autocast(image.device.type, enabled=False):
            return {"score": self.network.logit_scale.float().exp() * (image * text).sum(dim=-1)}


@registry.register("clip_scorer")
@dataclass
class ClipScorer(ScorerFamily):
    """Both towers, with the projections and the logit scale."""

    name: ClassVar[str] = "clip_scorer"

    def load_network(self, path: str, precision: str, **options: Any) -> Network:
        return load_network(path, dtype=DTYPES[precision], **options)

    @classmethod
    def tiny(cls, seed: int = 0) -> ClipScorer:
        from diffpref.models.tiny import tiny_clip

        towers, model = tiny_clip(seed)
        return cls("tiny", model, towers, width=model.config.projection_dim)

    # ------------------------------------------------------------ asking

    def encode_media(self, items: Sequence[Sequence[Image.Image]]) -> Tensor:
        return self.told.pixels(items)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        ids, mask = self.told.tokens(prompts)
        return Conditioning({"input_ids": ids, "attention_mask": mask})

    def install_heads(self, wanted: frozenset[str], start: str | None = None, size: int = 1) -> list[nn.Parameter]:
        own = self.scorer.head or ("mlp" if wanted - {"score"} else "cosine")
        if own == "cosine":
            if wanted - {"score"}:
                asked = ", ".join(sorted(wanted))
                raise ConfigError(f"scorer.head: the cosine says a score alone, and the objective asks for {asked}")
            return super().install_heads(wanted, start, size)
        self.scorer = self.scorer.model_copy(update={"head": own})
        shape = self.head_shape(wanted, size)
        self.heads = RewardHead(shape, self.random) if start is None else load_reward_head(start, shape)
        self.heads.to(self.network.device)
        return list(self.heads.parameters())

    def answer(
        self, network: Network, rows: Rows, wanted: frozenset[str] = frozenset(), trained: bool = False
    ) -> dict[str, Tensor]:
        asked = network if hasattr(network, "module") or isinstance(network, TwoTowers) else TwoTowers(network)
        told = rows.conditioning.tensors
        head = self.heads if trained else None
        return dict(asked(rows.inputs["media"], told["input_ids"], told["attention_mask"], head))

    def asked(self, network: Network) -> Network:
        return TwoTowers(network)

    @property
    def lora_targets(self) -> list[str]:
        return ["q_proj", "k_proj", "v_proj", "out_proj"]

    @staticmethod
    def blocks(network: Network) -> list[nn.Module]:
        return [*network.vision_model.encoder.layers, *network.text_model.encoder.layers]

    def after_update(self) -> None:
        with torch.no_grad():
            self.network.logit_scale.clamp_(0.0, float(torch.tensor(self.scorer.max_logit_scale).log()))

    def set_checkpointing(self, network: Network, level: bool | str) -> None:
        checkpoint_layers(network, self.blocks(network), level)

    # ------------------------------------------------------------ what was trained

    def add_lora(self, network: Network, config: Any, name: str) -> None:
        add_adapter(network, config, name)

    def read_lora(self, network: Network, path: str, name: str) -> int:
        return read_adapter(network, path, name)

    def save_lora(self, folder: Path, state: Tensors, settings: Mapping[str, Any]) -> None:
        save_adapter(folder, state, settings, self.path, "FEATURE_EXTRACTION")

    def save_network(self, network: Network, folder: Path, state: Tensors | None) -> None:
        network.save_pretrained(folder, state_dict=None if state is None else dict(state))
        towers = self.towers or load_words(resolve(self.path), self.revision)
        towers.tokenizer.save_pretrained(folder)
        towers.processor.save_pretrained(folder)

    def apply(self, path: str, lora: bool) -> None:
        if lora:
            self.read_lora(self.network, path, POLICY)
            return
        own = next(self.network.parameters())
        self.network = load_network(path, dtype=own.dtype).to(own.device)

    def save_whole(self, folder: Path, dtype: torch.dtype, lora: bool) -> None:
        if lora:
            fold(self.network)
        self.save_network(self.network.to(dtype), folder, None)

    @classmethod
    def usage(cls, load: str, folder: str) -> str:
        start = "from transformers import CLIPModel\n"
        if folder == "lora":
            return (
                f"from peft import PeftModel\n{start}\n"
                f'model = PeftModel.from_pretrained(CLIPModel.from_pretrained({load}), "{folder}")'
            )
        return f'{start}\nmodel = CLIPModel.from_pretrained("{folder}")'
