"""States of a policy that answer: LoRAs side by side in one network, each in force only while it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

from diffpref.config import Model
from diffpref.core.contracts import Conditioning, Media, Record, Rows
from diffpref.core.errors import ConfigError
from diffpref.core.files import sha256
from diffpref.data.texts import answer_of, prompt_of, template_of
from diffpref.loops.opening import load_model
from diffpref.loops.stage import Drawer, Iterate
from diffpref.models.gates import Manager, enter
from diffpref.models.precision import autocast
from diffpref.sampling import MixedRole, Sampler, SamplerSettings, TextSampler, TextSettings, mixture_of

__all__ = ["Draw", "Player", "Players", "identity"]

Draw: TypeAlias = Callable[[Sequence[str], Sequence[int]], Sequence[Media]]
"""Prompts and seeds to answers, each a function of its own prompt and seed."""


def identity(iterate: Iterate, model: Model) -> str:
    """Return which weights an iterate stands for, in words that change when the weights do."""
    parts = [f"{model.family} {model.path}" + (f"@{model.revision}" if model.revision else "")]
    for folder in (iterate.model, iterate.lora):
        if folder is not None:
            files = sorted(Path(folder).glob("*.safetensors"))
            parts.append(f"{Path(folder).name} {'+'.join(sha256(file)[:12] for file in files)}")
    return ", ".join(parts)


@dataclass(frozen=True)
class Player:
    """A state of the policy.

    Args:
        family: with all its parts.
        gate: makes the context in which its network is this state.
        precision: of the network's answers.
    """

    family: Any
    gate: Manager
    precision: str

    def ask(self, rows: Rows, grad: bool = False) -> dict[str, torch.Tensor]:
        """Ask as a role is asked."""
        network = self.family.network
        device = next(network.parameters()).device
        with torch.no_grad(), enter(self.gate), autocast(self.precision, device):
            return dict(self.family.answer(network, rows, frozenset()))


class Players:
    """The states that take part in a round.

    Args:
        model: of the recipe.
        device: where they run.
        iterates: the states.

    Raises:
        ModelError: the model or a LoRA cannot be loaded.
    """

    def __init__(self, model: Model, device: str, iterates: Sequence[Iterate]) -> None:
        from diffpref.models.adapters._peft import load_lora, select_lora
        from diffpref.models.adapters.lora import Lora

        self.players: dict[Iterate, Player] = {}
        for path in dict.fromkeys(iterate.model for iterate in iterates):
            family: Any = load_model(model if path is None else model.model_copy(update={"path": path}), device)
            family.network.requires_grad_(False)
            here = dict.fromkeys(iterate for iterate in iterates if iterate.model == path)
            adapted = [iterate for iterate in here if iterate.lora is not None]
            for number, iterate in enumerate(adapted):
                load_lora(family, family.network, str(iterate.lora), f"iterate_{number}")
                gate = partial(select_lora, family.network, f"iterate_{number}")
                self.players[iterate] = Player(family, gate, model.precision)
            if len(here) > len(adapted):
                off: Manager = partial(Lora().off, family.network) if adapted else nullcontext
                self.players[Iterate(model=path)] = Player(family, off, model.precision)
            family.network.eval()

    @property
    def likelihood(self) -> str:
        """How the family's answers are read."""
        return str(next(iter(self.players.values())).family.likelihood)

    def drawing(self, drawer: Drawer, settings: TextSettings | SamplerSettings) -> Draw:
        """Return what draws as a drawer says."""
        player = self.players[drawer.iterate]
        other = self.players[drawer.mixed_with] if drawer.mixed_with is not None and drawer.share else None
        if isinstance(settings, SamplerSettings):
            role = player.ask if other is None else MixedRole(player.ask, other.ask, drawer.share)
            return Sampler(player.family, role, settings)
        mixed = [] if other is None else [mixture_of(other.family.network, drawer.share, other.gate)]
        family = player.family
        sampler = TextSampler(family.network, family.tokenizer, settings, processors=mixed)

        def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
            with enter(player.gate), autocast(player.precision, next(family.network.parameters()).device):
                return sampler(prompts, seeds)

        return draw

    def implicit_rewards(self, record: Record, policy: Iterate, initial: Iterate) -> list[float]:
        """Return log-likelihood under the policy minus that under the initial model for each answer of a record.

        Raises:
            ConfigError: the models are no language models.
        """
        if self.likelihood != "tokens":
            raise ConfigError("loop: the implicit reward of single answers is there for language models only")
        one, other = (self._logps(self.players[iterate], record) for iterate in (policy, initial))
        return (one - other).tolist()

    @staticmethod
    def _logps(player: Player, record: Record) -> torch.Tensor:
        from diffpref.likelihood.tokens import IGNORED

        family = player.family
        answers = [answer_of(record, number) for number in range(len(record.candidates))]
        head, tails = family.encode(prompt_of(record), answers, **template_of(record))
        width = len(head) + max(map(len, tails))
        device = next(family.network.parameters()).device
        ids, labels = torch.zeros(len(tails), width, dtype=torch.int64), torch.full((len(tails), width), IGNORED)
        mask = torch.zeros_like(ids)
        for row, tail in enumerate(tails):
            end = len(head) + len(tail)
            ids[row, :end] = torch.tensor([*head, *tail])
            labels[row, len(head) : end] = torch.tensor(tail)
            mask[row, :end] = 1
        conditioning = Conditioning({"attention_mask": mask.to(device)})
        rows = Rows("tokens", {"ids": ids.to(device), "labels": labels.to(device)}, conditioning, groups={})
        return player.ask(rows)["token_logps"].double().sum(-1).cpu()
