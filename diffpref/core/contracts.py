"""The contracts between the rooms: what flows from data to a method, to the models, to an objective.

Shape letters: B records (pairs or lists) in a batch, K candidates in a list, N rows of a flat model batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, runtime_checkable

from diffpref.core.judging import AspectReward, ImageEmbedder, Judge, Reward, RewardInfo
from diffpref.core.media import Clip, Media, Sound
from diffpref.core.records import Candidate, Caption, Judgement, PromptMedia, Record, Score
from diffpref.core.roles import Ema, Every, RoleSpec, Snapshots

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffpref.core.randomness import Random

__all__ = [
    "AspectReward",
    "Batch",
    "Callback",
    "Candidate",
    "Caption",
    "Clip",
    "CollectingMethod",
    "Conditioning",
    "Context",
    "Ema",
    "Every",
    "ImageEmbedder",
    "Judge",
    "Judgement",
    "Likelihood",
    "Media",
    "Method",
    "PromptMedia",
    "Record",
    "Reward",
    "RewardInfo",
    "Role",
    "RoleSpec",
    "Rows",
    "Score",
    "Snapshots",
    "Sound",
    "StatefulMethod",
    "Tensors",
    "Terms",
    "World",
]

Tensors: TypeAlias = Mapping[str, "Tensor"]


# ---------------------------------------------------------------- data in a step


@dataclass(frozen=True)
class Conditioning:
    """What a denoiser is told besides its input, a row each: for SDXL ``prompt_embeds`` (N, T, D),
    ``pooled_prompt_embeds`` (N, P) and ``time_ids`` (N, 6)."""

    tensors: Tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def take(self, rows: Tensor | Sequence[int] | slice) -> Conditioning:
        """Return the given rows."""
        return Conditioning({name: tensor[rows] for name, tensor in self.tensors.items()})

    def to(self, device: torch.device | str) -> Conditioning:
        """Move every tensor to a device."""
        return Conditioning({name: tensor.to(device) for name, tensor in self.tensors.items()})

    def zeros(self, keep: frozenset[str] = frozenset()) -> Conditioning:
        """Return zeros in place of every tensor but those of the names to keep."""
        return Conditioning({name: t if name in keep else t.new_zeros(t.shape) for name, t in self.tensors.items()})

    def replace(self, tensors: Tensors) -> Conditioning:
        """Return the same rows with some tensors exchanged."""
        return Conditioning({**self.tensors, **tensors})

    @staticmethod
    def concatenate(parts: Sequence[Conditioning]) -> Conditioning:
        """Put the rows of several after one another."""
        import torch

        return Conditioning({name: torch.cat([p.tensors[name] for p in parts]) for name in parts[0].tensors})

    def where(self, mask: Tensor, other: Conditioning, keep: frozenset[str] = frozenset()) -> Conditioning:
        """Return the rows of ``other`` where ``mask`` (N,) is true, else our own.

        Args:
            mask: (N,) booleans.
            other: N rows, or one for all.
            keep: tensors that stay our own in every row.
        """
        import torch

        def choose(name: str, own: Tensor) -> Tensor:
            return own if name in keep else torch.where(mask.view(-1, *[1] * (own.dim() - 1)), other.tensors[name], own)

        return Conditioning({name: choose(name, tensor) for name, tensor in self.tensors.items()})


@dataclass(frozen=True)
class Batch:
    """The records of one micro-batch, encoded.

    Args:
        keys: B pairs (record id, visit): the key of every random draw that belongs to a record.
        media: group -> latents (B, C, H, W), or (B, K, C, H, W) for ``list``.
        conditioning: group -> B rows; the group ``""`` is the caption that all candidates share. Where a method names
            ``captions``, a group's own caption stands beside it.
        columns: data columns by their vocabulary names, (B,) or (B, K).
        empty: one row: the conditioning of the empty caption.
        prompts: the B captions, for what scores samples while it trains.
        metadata: what B records say besides, for rewards that read it; empty where the data say nothing.
    """

    keys: tuple[tuple[str, int], ...]
    media: Tensors
    conditioning: Mapping[str, Conditioning]
    columns: Tensors
    empty: Conditioning
    prompts: tuple[str, ...] = ()
    metadata: tuple[Mapping[str, Any], ...] = ()

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Rows:
    """One flat batch of questions to a model.

    Args:
        likelihood: which likelihood reads the answers: ``"denoising"``, ``"tokens"``, ``"steps"`` or ``"score"``.
        inputs: (N, …) tensors: ``noisy``, ``timesteps`` and ``target`` for a denoiser.
        conditioning: N rows.
        groups: group -> (B,) or (B, K) row numbers, -1 where absent.
        columns: (B, …) data columns that the objective may ask for.
        draws: how many (timestep, noise) draws are averaged before the objective.
        guidance: classifier-free guidance inside the training forward.
        no_grad: groups that get no gradient.
        depends_on: roles that made the inputs; a bank refuses rows that depend on a trained one.
        negative: with ``guidance`` other than 1, N rows or one: what roles are told in place of the prompt.
        answers: role -> what it said of all rows while they were made, under that guidance; it is not asked again, but
            for gradients.
        schedule: what noised the inputs, where a method takes another than the family's; the likelihood's weights are
            those of this one.
    """

    likelihood: str
    inputs: Tensors
    conditioning: Conditioning
    groups: Tensors
    columns: Tensors = field(default_factory=dict)
    draws: int = 1
    guidance: float = 1.0
    no_grad: frozenset[str] = frozenset()
    depends_on: frozenset[str] = frozenset()
    negative: Conditioning | None = None
    answers: Mapping[str, Tensors] = field(default_factory=dict)
    schedule: Any = None

    def pieces(self, size: int) -> list[Rows]:
        """Cut into questions of at most ``size`` rows. They have no groups: models answer them, objectives do not."""
        length, negative = len(next(iter(self.inputs.values()))), self.negative
        return [
            replace(
                self,
                inputs={name: tensor[start : start + size] for name, tensor in self.inputs.items()},
                conditioning=self.conditioning.take(slice(start, start + size)),
                groups={},
                columns={},
                draws=1,
                negative=negative
                if negative is None or len(negative) == 1
                else negative.take(slice(start, start + size)),
                answers={},
            )
            for start in range(0, length, size)
        ]


@dataclass(frozen=True)
class Terms:
    """What an objective returns when a bare (B,) tensor of losses does not say enough.

    Args:
        losses: (B,) unreduced.
        weights: (B,); the step's loss is sum(weights * losses) / sum(weights) over all ranks and accumulation steps.
        state: running statistics, committed once an update.
        metrics: detached (B,) tensors for the log.
    """

    losses: Tensor
    weights: Tensor | None = None
    state: Tensors | None = None
    metrics: Tensors = field(default_factory=dict)


# ---------------------------------------------------------------- what acts in a step


class Likelihood(Protocol):
    """Turns model outputs into the quantities that objectives name. Arithmetic only.

    ``provides`` holds these quantities, a unit before them where they are of parts: ``"log_ratio"``,
    ``"token_log_ratio"``; also those data quantities that it reads off the rows, such as ``"length"``. ``from_raw``
    are those of them that need only `raw` of each role, a few numbers a row, so that a role's answers need not be kept,
    or not even be computed again; ``raw_names`` names these numbers. ``lacks`` says of what families of this likelihood
    never provide why that is so, and what to do.
    """

    provides: ClassVar[frozenset[str]]
    from_raw: ClassVar[frozenset[str]]
    raw_names: ClassVar[tuple[str, ...]]
    lacks: ClassVar[Mapping[str, str]]

    @classmethod
    def build(cls, family: Any, settings: Any, trained: frozenset[str]) -> Likelihood:
        """Return the likelihood of a run.

        Args:
            family: of the models, loaded.
            settings: the recipe's section ``likelihood``.
            trained: roles into which gradients flow.
        """
        ...

    def __call__(self, names: Sequence[str], outputs: Mapping[str, Tensors], rows: Rows) -> dict[str, Tensor]:
        """Return a tensor for each vocabulary name.

        Args:
            names: what is asked, such as ``chosen_log_ratio``.
            outputs: role -> what its model answered for all rows, or `raw` of it.
            rows: the question.
        """
        ...

    def raw(self, answers: Tensors, rows: Rows) -> dict[str, Tensor]:
        """Return (N,) tensors that stand for a role's answers in every quantity of ``from_raw``; or give them back."""
        ...


class Role(Protocol):
    """A view of weights that answers questions."""

    def __call__(self, rows: Rows, grad: bool = False) -> dict[str, Tensor]:
        """Return the answers, (N, …) each: ``prediction`` for a denoiser."""
        ...


def _alone(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class World:
    """The processes that train together.

    Args:
        size: how many they are.
        rank: which of them this is, from 0.
        largest: from a whole number of this process to the largest over all; each must call it.
        gather: puts the tensors of all processes after one another, on every process; each must call it.
    """

    size: int = 1
    rank: int = 0
    largest: Callable[[int], int] = int
    gather: Callable[[Tensor], Tensor] = field(default=_alone, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


@dataclass(frozen=True)
class Context:
    """What a method may use besides its batch.

    Args:
        family: of the models.
        roles: the models by name.
        random: keyed draws.
        step: updates done.
        round: rounds done, where a loop makes data and trains by turns.
        scorers: rewards by name.
        state: what the method's `after_step` returned last; empty before that.
        world: the processes that train together.
        metrics: what the log says of the update just done; only in `after_step`.
        exchange: swaps the weights of two trained roles, with their optimiser state and learning rates; only there.
        networks: the models themselves, where ``roles`` holds what a bank remembers of one; see `network`.
    """

    family: Any
    roles: Mapping[str, Role]
    random: Random
    step: int = 0
    round: int = 0
    scorers: Mapping[str, Reward] = field(default_factory=dict)
    state: Tensors = field(default_factory=dict)
    world: World = World()
    metrics: Mapping[str, float] = field(default_factory=dict)
    exchange: Callable[[str, str], None] | None = None
    networks: Mapping[str, Role] = field(default_factory=dict)

    def network(self, role: str) -> Role:
        """Return a role that answers in full, whatever a bank remembers of it: what a method asks in `prepare`."""
        return self.networks[role] if role in self.networks else self.roles[role]


@runtime_checkable
class Method(Protocol):
    """Decides what is put before the models. A frozen config; nothing is kept on ``self``.

    Besides what is listed here a method may have the class attributes ``accepts``, the groups that it prepares when the
    objective names them, besides those of `needs`; ``makes``, the groups and the data columns that `prepare` adds to
    ``Rows.groups`` and ``Rows.columns``, which the data then need not have; ``gives``, quantities with their units that
    the likelihood provides of this method's rows alone; ``captions``, group -> the kind of caption under which its
    candidates are shown (`diffpref.data.captions`); ``pair_source``, what the ``source`` of its records must be, where
    that is not ``"any"``; and ``decodes``, whether it needs the VAE beside the denoiser. It may also have functions.
    ``misfits(recipe)`` yields a line for each setting with which it would not be what it says, dotted path first; it is
    asked before anything is loaded. ``settle(columns)`` gets the columns of every item of the data and returns the
    method that trains on them, where an option is measured on these.
    """

    likelihood: ClassVar[str]
    """The likelihood that reads the answers to its rows: ``"denoising"``, ``"tokens"``."""

    @property
    def needs(self) -> frozenset[str]:
        """Data groups and columns that a batch must have: ``{"chosen", "rejected"}``."""
        ...

    @property
    def roles(self) -> Mapping[str, RoleSpec]:
        """The models that may take part, besides the policy."""
        ...

    @property
    def objectives(self) -> Sequence[Any]:
        """The default objective terms, used when the recipe names none."""
        ...

    def prepare(self, batch: Batch, context: Context) -> Rows:
        """Turn records into questions."""
        ...


@runtime_checkable
class StatefulMethod(Method, Protocol):
    """A method that remembers something from one update to the next."""

    def after_step(self, context: Context) -> Tensors:
        """After an update; what it returns is `Context.state` from now on, saved in every checkpoint."""
        ...


@runtime_checkable
class CollectingMethod(Method, Protocol):
    """A method that makes part of its data while it trains: samples of one of its roles, and what is said of them.

    It may also have ``rewards``, a sequence of names with options: what scores its samples, as `Context.scorers`.
    """

    @property
    def collect_every(self) -> int:
        """How many updates one collection serves, this one and the next ones."""
        ...

    @property
    def passes(self) -> int:
        """How often each sample is used; divides ``collect_every``."""
        ...

    @property
    def group_size(self) -> int:
        """How many samples of each prompt a collection makes; an update's records are so many of each."""
        ...

    def collect(self, batch: Batch, context: Context) -> Batch:
        """Return the batch with what ``makes`` names added to its media and columns; the rest must stay.

        Every process must make the same sequence of calls of models.

        Args:
            batch: all records of this collection that are this process's, in their order.
            context: of the step; roles are asked without gradient.
        """
        ...


class Callback(Protocol):
    """Called by the trainer on every process."""

    def on_step(self, trainer: Any, step: int, metrics: Mapping[str, float]) -> Mapping[str, float] | None:
        """After an update; what it returns is logged with the step."""
        ...

    def on_end(self, trainer: Any) -> None:
        """After the last update."""
        ...
