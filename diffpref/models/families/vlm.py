"""Vision-language models: any image-text-to-text model of transformers, with its processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffpref.core.assets import resolve
from diffpref.core.contracts import Tensors
from diffpref.core.errors import ConfigError
from diffpref.models import registry
from diffpref.models.base import Network
from diffpref.models.decoders import blocks_of, context_of, load_decoder, read_context
from diffpref.models.families.causal_lm import CausalLM
from diffpref.models.loading import freeze
from diffpref.models.pictures import VISION, load_processor, tiny_processor, tiny_seer, with_pictures
from diffpref.models.precision import DTYPES
from diffpref.models.tokenising import Text, split

__all__ = ["VisionLanguageModel"]


@registry.register("vlm")
@dataclass
class VisionLanguageModel(CausalLM):
    """A decoder that sees pictures: each becomes tokens of the prompt.

    Args:
        processor: of transformers: tokenizer, image processor and chat template.
    """

    processor: Any = None

    name: ClassVar[str] = "vlm"
    sees: ClassVar[bool] = True
    hub: ClassVar[Mapping[str, str]] = {"library_name": "transformers", "pipeline_tag": "image-text-to-text"}

    # ------------------------------------------------------------ loading

    @classmethod
    def load(
        cls,
        path: str,
        *,
        parts: Sequence[str] = ("network", "text"),
        precision: str = "fp32",
        revision: str | None = None,
        variant: str | None = None,
        allow_pickle: bool = False,
    ) -> VisionLanguageModel:
        """Load the asked parts; code of a repository is never run.

        Args:
            path: folder or hub id.
            parts: of ``"network" "text"`` (the processor).
            precision: ``fp32``, ``bf16`` or ``fp16``: the dtype of the network.
            revision: branch, tag or commit on the hub.
            variant: weight variant.
            allow_pickle: also accept pickled weights.

        Raises:
            ModelError: nothing that can be loaded safely lies there, or it reads no pictures.
        """
        where = resolve(path)
        family = cls(path, revision=revision)
        if "network" in parts:
            family.network = freeze(
                load_decoder(
                    where,
                    dtype=DTYPES[precision],
                    revision=revision,
                    variant=variant,
                    allow_pickle=allow_pickle,
                    pictures=True,
                )
            )
            family.context = read_context(family.network.config)
        else:
            family.context = context_of(where, revision=revision)
        if "text" in parts:
            family._take(load_processor(where, revision=revision))
        return family

    @classmethod
    def tiny(cls, seed: int = 0) -> VisionLanguageModel:
        processor = tiny_processor()
        network = freeze(tiny_seer(processor, seed))
        family = cls("tiny", network, context=read_context(network.config))
        family._take(processor)
        return family

    def _take(self, processor: Any) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer

    def drop(self, *parts: str) -> None:
        """Forget parts that are no longer needed."""
        super().drop(*parts)
        if "text" in parts:
            self.processor = None

    # ------------------------------------------------------------ asking

    def encode(
        self, prompt: Text, completions: Sequence[Text], pictures: Sequence[Any] = (), **template: Any
    ) -> tuple[list[int], list[list[int]]]:
        """Return the tokens of a prompt, those that stand for its pictures among them, and of each completion.

        Args:
            prompt: text, or messages. Where no message has a place for a picture, they come before everything else.
            completions: of the same kind.
            pictures: RGB pictures of the prompt, in order.
            template: further arguments of the chat template.

        Raises:
            DataError: the messages have places for another number of pictures, or as `encode_completions` says.
        """
        if self.processor is None:
            raise ConfigError("the family's 'text' is not loaded; load it with parts=(..., 'text')")
        start, wholes, plain = with_pictures(self.processor, prompt, completions, len(pictures), template)
        shown = {"images": [list(pictures)]} if pictures else {}
        ids = [self.processor(text=[text], **shown)["input_ids"][0] for text in (start, *wholes)]
        return split(self.tokenizer, list(ids[0]), [list(one) for one in ids[1:]], completions, plain)

    def look(self, pictures: Sequence[Any]) -> dict[str, Tensor]:
        """Return the processor's tensors of pictures: ``pixel_values`` and what else the model is told of them."""
        made = self.processor.image_processor(images=list(pictures), return_tensors="pt")
        return {name: tensor for name, tensor in made.items() if isinstance(tensor, Tensor)}

    @torch.no_grad()
    def features(self, conditioning: Tensors) -> Tensor:
        """Return (N, D) what the model's tower says of the pictures of each row, the mean over places and pictures."""
        told = self._vision(conditioning, self.network)
        count, each = next(iter(told.values())).shape[:2]
        said = self.network.get_image_features(**{name: t.flatten(0, 1) for name, t in told.items()})
        found = torch.stack([one.flatten(0, -2).float().mean(dim=0) for one in said.pooler_output])
        return found.view(count, each, -1).mean(dim=1)

    def _vision(self, conditioning: Tensors, network: Network) -> dict[str, Tensor]:
        dtype = next(network.parameters()).dtype
        told = {name.removeprefix(VISION): t for name, t in conditioning.items() if name.startswith(VISION)}
        return {name: t.to(dtype) if t.is_floating_point() else t for name, t in told.items()}

    @property
    def lora_targets(self) -> list[str]:
        """The linear layers of attention in the language part, by their full names: towers use the same short ones."""
        blocks = {id(module) for block in self.blocks(self.network) for module in block.modules()}
        named = [(name, module) for name, module in self.network.named_modules() if id(module) in blocks]
        linear = [name for name, module in named if isinstance(module, nn.Linear)]
        attention = [name for name in linear if "attn" in name or "attention" in name]
        return sorted(attention or linear)

    @staticmethod
    def blocks(network: Network) -> list[nn.Module]:
        return blocks_of(network.get_decoder())

    @classmethod
    def usage(cls, load: str, folder: str) -> str:
        text = super().usage(load, folder)
        text = text.replace("AutoModelForCausalLM", "AutoModelForImageTextToText")
        return text.replace("AutoTokenizer", "AutoProcessor").replace("tokenizer =", "processor =")

    # ------------------------------------------------------------ what was trained

    def apply(self, path: str, lora: bool) -> None:
        if lora:
            super().apply(path, lora)
            return
        own = next(self.network.parameters())
        self.network = freeze(load_decoder(path, dtype=own.dtype, pictures=True)).to(own.device)

    def save_network(self, network: Network, folder: Path, state: Tensors | None) -> None:
        network.save_pretrained(folder, state_dict=None if state is None else dict(state))
        processor = self.processor or load_processor(resolve(self.path), revision=self.revision)
        processor.save_pretrained(folder)
