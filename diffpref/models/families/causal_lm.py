"""Language models: any decoder of transformers, from a hub id, a folder or a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffpref.core.assets import resolve
from diffpref.core.contracts import Rows, Tensors
from diffpref.core.errors import ConfigError, ModelError
from diffpref.likelihood.head import Head
from diffpref.likelihood.tokens import places, read_role, spread
from diffpref.models import registry
from diffpref.models.base import ModelFamily, Network
from diffpref.models.decoders import (
    blocks_of,
    context_of,
    decoder_of,
    head_of,
    load_decoder,
    load_tokenizer,
    read_context,
    tiny_decoder,
    tiny_tokenizer,
)
from diffpref.models.heads import HEADS, Heads, activation_weights, load_heads
from diffpref.models.loading import freeze
from diffpref.models.packing import is_attached, lay_out, run
from diffpref.models.peft_files import add_adapter, fold, read_adapter, save_adapter
from diffpref.models.precision import DTYPES
from diffpref.models.recompute import checkpoint_layers
from diffpref.models.tokenising import Text, encode_completions

__all__ = ["CausalLM", "Completions"]

POLICY = "default"


class Completions(nn.Module):
    """A decoder that is asked about completions; what is wrapped where several processes train.

    Args:
        network: a causal language model of transformers.
        even: whether rows keep their padding, so that every forward has one shape.
    """

    def __init__(self, network: Network, even: bool = False) -> None:
        super().__init__()
        self.network, self.even = network, even

    def forward(
        self,
        ids: Tensor,
        labels: Tensor,
        mask: Tensor,
        wanted: frozenset[str] = frozenset(),
        heads: Heads | None = None,
        vision: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return what `diffpref.likelihood.tokens.read_role` makes of the hidden states before each labelled token.

        Args:
            ids: (N, T) prompt and completion, padded on either side.
            labels: (N, T) the same tokens, -100 where nothing is predicted.
            mask: (N, T), 0 at padding.
            wanted: quantities that the objectives name.
            heads: of the policy; a role without them says token weights by its activations.
            vision: a processor's tensors of the prompts' pictures, (N, pictures, ...) each.
        """
        layers = "token_weight" in wanted if heads is None else heads.needs_layers
        states, each, ends = self._states(ids, labels, mask, layers, vision or {})
        found = read_role(states, head_of(self.network), labels, wanted)
        where = places(labels)
        said: dict[str, Tensor] = {}
        if heads is not None:
            said = heads(states, each, ends)
        elif each is not None:
            said = {"token_weight": activation_weights(each, where[0], len(labels))}
        tokens = {name: value for name, value in said.items() if name.startswith("token_")}
        return found | said | {name: spread(values, labels, where) for name, values in tokens.items()}

    def _states(
        self, ids: Tensor, labels: Tensor, mask: Tensor, layers: bool, vision: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return states: (M, D) before predicted tokens, (M, L, D) of every layer where asked, (N, D) at the ends."""
        packs = not self.even and not vision and is_attached(self.network)
        layout = lay_out(ids, labels, mask) if packs else None
        if layout is not None:
            return run(self.network, layout, layers)
        told: dict[str, Any] = {"input_ids": ids, "use_cache": False}
        if not bool((mask[:, :-1] >= mask[:, 1:]).all()):  # padding on the right is after everything that is read
            told |= {"attention_mask": mask, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}
        if layers:
            told["output_hidden_states"] = True
        there = mask[:, 0] > 0  # an absent row has no tokens for pictures
        told |= {name: tensor[there].flatten(0, 1) for name, tensor in vision.items()}
        hidden = decoder_of(self.network)(**told)
        row, place, _ = places(labels)
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
        ends = hidden.last_hidden_state[torch.arange(len(last), device=last.device), last]
        if not layers:
            return hidden.last_hidden_state[row, place], None, ends
        each = [one.detach()[row, place] for one in hidden.hidden_states[1:]]
        return hidden.last_hidden_state[row, place], torch.stack(each, dim=1), ends


@registry.register("causal_lm")
@dataclass
class CausalLM(ModelFamily):
    """A decoder with its tokenizer.

    Args:
        path: where they come from.
        network: a causal language model of transformers.
        tokenizer: its own.
        context: tokens that the model can read.
        revision: commit, tag or branch on the hub.
        even: whether rows keep their padding, so that every forward has one shape.
        heads: of the policy, where an objective names what they say.
    """

    path: str
    network: Network = None
    tokenizer: Any = None
    context: int | None = None
    revision: str | None = None
    even: bool = False
    heads: Heads | None = None

    name: ClassVar[str] = "causal_lm"
    likelihood: ClassVar[str] = "tokens"
    samples: ClassVar[str] = "completions"
    sees: ClassVar[bool] = False
    """Whether prompts may hold pictures."""
    hub: ClassVar[Mapping[str, str]] = {"library_name": "transformers", "pipeline_tag": "text-generation"}

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
    ) -> CausalLM:
        """Load the asked parts; code of a repository is never run.

        Args:
            path: folder, hub id, or a ``.gguf`` file, whose weights are unpacked to full numbers.
            parts: of ``"network" "text"`` (the tokenizer).
            precision: ``fp32``, ``bf16`` or ``fp16``: the dtype of the network.
            revision: branch, tag or commit on the hub.
            variant: weight variant.
            allow_pickle: also accept pickled weights.

        Raises:
            ModelError: nothing that can be loaded safely lies there, it is no decoder, or its logits are made in a way
                that is not known here.
        """
        where = resolve(path)
        family = cls(path, revision=revision)
        if "network" in parts:
            family.network = freeze(
                load_decoder(
                    where, dtype=DTYPES[precision], revision=revision, variant=variant, allow_pickle=allow_pickle
                )
            )
            family.context = read_context(family.network.config)
            _check_head(path, family.network)
        else:
            family.context = context_of(where, revision=revision)
        if "text" in parts:
            family.tokenizer = load_tokenizer(where, revision=revision)
        if family.network is not None and family.tokenizer is not None:
            words, rows = len(family.tokenizer), family.network.get_input_embeddings().num_embeddings
            if not 0.5 * rows <= words <= rows:
                raise ModelError(f"model.path: {path} has a tokenizer of {words} words for {rows} embeddings")
        return family

    @classmethod
    def tiny(cls, seed: int = 0) -> CausalLM:
        tokenizer = tiny_tokenizer()
        network = freeze(tiny_decoder(tokenizer, seed))
        return cls("tiny", network, tokenizer, read_context(network.config))

    def to(self, device: torch.device | str) -> CausalLM:
        if self.network is not None:
            self.network.to(device)
        return self

    def drop(self, *parts: str) -> None:
        """Forget parts that are no longer needed."""
        for part in parts:
            setattr(self, {"text": "tokenizer"}.get(part, part), None)

    # ------------------------------------------------------------ asking

    def encode(self, prompt: Text, completions: Sequence[Text], **template: Any) -> tuple[list[int], list[list[int]]]:
        """Return the tokens of a prompt and of each completion; see `encode_completions`."""
        if self.tokenizer is None:
            raise ConfigError("the family's 'text' is not loaded; load it with parts=(..., 'text')")
        return encode_completions(self.tokenizer, prompt, completions, **template)

    def install_heads(self, wanted: frozenset[str], start: str | None = None, size: int = 1) -> list[nn.Parameter]:
        says = frozenset(wanted & HEADS.keys())
        if not says:
            if start is not None:
                raise ConfigError("adapter.heads: the objective asks nothing of a head; leave it out")
            return []
        config = self.network.config.get_text_config()
        heads = Heads(config.hidden_size, config.num_hidden_layers, says, size) if start is None else load_heads(start)
        if (heads.width, heads.layers, heads.says) != (config.hidden_size, config.num_hidden_layers, says):
            raise ConfigError(
                f"adapter.heads: {start} holds heads of another model, or {', '.join(sorted(heads.says))}"
            )
        self.heads = heads.to(self.network.device)
        return list(self.heads.parameters())

    def answer(
        self, network: Network, rows: Rows, wanted: frozenset[str] = frozenset(), trained: bool = False
    ) -> dict[str, Tensor]:
        asked = (
            network
            if hasattr(network, "module") or isinstance(network, Completions)
            else Completions(network, self.even)
        )
        told = rows.conditioning.tensors
        return dict(
            asked(
                rows.inputs["ids"],
                rows.inputs["labels"],
                told["attention_mask"],
                wanted,
                self.heads if trained else None,
                self._vision(told, network),
            )
        )

    def _vision(self, conditioning: Tensors, network: Network) -> dict[str, Tensor]:
        """Return what a network is told of pictures, by a processor's names."""
        return {}

    def apply(self, path: str, lora: bool) -> None:
        if lora:
            self.read_lora(self.network, path, POLICY)
            return
        own = next(self.network.parameters())
        self.network = freeze(load_decoder(path, dtype=own.dtype)).to(own.device)

    def save_whole(self, folder: Path, dtype: torch.dtype, lora: bool) -> None:
        if lora:
            fold(self.network)
        self.save_network(self.network.to(dtype), folder, None)

    @classmethod
    def usage(cls, load: str, folder: str) -> str:
        start = "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        if folder == "lora":
            return (
                f"from peft import PeftModel\n{start}\ntokenizer = AutoTokenizer.from_pretrained({load})\n"
                f"model = AutoModelForCausalLM.from_pretrained({load})\n"
                f'model = PeftModel.from_pretrained(model, "{folder}")'
            )
        return (
            f"{start}\ntokenizer = AutoTokenizer.from_pretrained({load})\n"
            f'model = AutoModelForCausalLM.from_pretrained("{folder}")'
        )

    def asked(self, network: Network) -> Network:
        return Completions(network, self.even)

    @property
    def lora_targets(self) -> list[str]:
        """The linear layers of attention; of every linear layer of the blocks where none is called so."""
        from transformers.pytorch_utils import Conv1D

        linear = [
            name.removesuffix(".base_layer")  # as it was before it was adapted
            for block in self.blocks(self.network)
            for name, module in block.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and ".lora_" not in name
        ]
        attention = [name for name in linear if "attn" in name or "attention" in name]
        return sorted({name.rsplit(".", 1)[-1] for name in attention or linear})

    @staticmethod
    def blocks(network: Network) -> list[nn.Module]:
        return blocks_of(decoder_of(network))

    def set_checkpointing(self, network: Network, level: bool | str) -> None:
        checkpoint_layers(network, self.blocks(network), level)

    # ------------------------------------------------------------ what was trained

    def add_lora(self, network: Network, config: Any, name: str) -> None:
        add_adapter(network, config, name)

    def read_lora(self, network: Network, path: str, name: str) -> int:
        return read_adapter(network, path, name)

    def save_lora(self, folder: Path, state: Tensors, settings: Mapping[str, Any]) -> None:
        save_adapter(folder, state, settings, self.path, "CAUSAL_LM")

    def save_network(self, network: Network, folder: Path, state: Tensors | None) -> None:
        network.save_pretrained(folder, state_dict=None if state is None else dict(state))
        tokenizer = self.tokenizer or load_tokenizer(resolve(self.path), revision=self.revision)
        tokenizer.save_pretrained(folder)


def _check_head(path: str, network: Network) -> None:
    """Refuse a model whose logits are not what `Head` makes of its hidden states."""
    ids = torch.arange(4, device=network.device).unsqueeze(0)
    with torch.no_grad():
        expected = network(input_ids=ids, use_cache=False).logits[0].float()
        head: Head = head_of(network)
        found = head.logits(decoder_of(network)(input_ids=ids, use_cache=False).last_hidden_state[0]).float()
    size = expected.abs().max().clamp(min=1.0)
    if found.shape != expected.shape or not (found - expected).abs().max() <= 0.02 * size:
        raise ModelError(
            f"model.path: {path} makes its logits in a way that is not known here ({type(network).__name__}: more than"
            " a linear head with a bias, a scale and a soft cap)"
        )
