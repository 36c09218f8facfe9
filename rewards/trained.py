"""Reward models that ``diffpref reward train`` has trained, of pictures, clips or texts.

``path`` is the folder of the run, with ``reward.json``, or one that was copied from it with ``model/``, ``lora/`` and
``heads/``. The probability of a pair is the one that its loss was trained with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffpref.config import Scorer
from diffpref.core.annotations import PositiveInt
from diffpref.core.assets import PREFIX, resolve
from diffpref.core.contracts import Conditioning, Media, Reward, RewardInfo, Rows
from diffpref.core.errors import ConfigError
from diffpref.core.randomness import Random
from diffpref.models import load_family
from diffpref.models.clip_towers import image_features
from diffpref.models.heads import load_heads
from diffpref.models.reward_files import RewardFiles
from diffpref.objectives.pair_probability import PairModel
from diffpref.rewards import registry
from diffpref.rewards._dual_encoder import Framing
from diffpref.rewards._media import as_clips, as_pictures, as_texts, check_lengths
from diffpref.rewards._weights import Precision, content_version

__all__ = ["Trained", "load_trained"]

NAME = "trained"
SPREAD = 10.0
"""Typical largest size of a score that has no bound: its differences are log-odds."""
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}

Ask = Callable[[Sequence[Any], Sequence[str]], dict[str, Tensor]]
"""Items and their prompts to what the model says of them."""


@dataclass(frozen=True)
class Trained:
    """A reward and a judge.

    Args:
        info: what it says of itself.
        ask: of a few items at once.
        pair: the probability of a pair; None where the training knew none.
        micro_batch: items that run at once.
    """

    info: RewardInfo
    ask: Ask
    pair: PairModel | None
    micro_batch: int = 16

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 on the CPU; of a model of several aspects their mean.

        Raises:
            ShapeError: not as many prompts as items.
            DataError: an item of another kind.
            ConfigError: the model compares two items and scores none.
        """
        return _score(self.say(media, prompts))

    def score_aspects(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        """Return (N,) float32 for each of ``info.aspects``."""
        if not self.info.aspects:
            raise ConfigError(f"reward '{NAME}' was trained on one score and has no aspects")
        return dict(zip(self.info.aspects, self.say(media, prompts)["scores"].unbind(dim=1), strict=True))

    def compare(self, first: Sequence[Media], second: Sequence[Media], prompts: Sequence[str]) -> Tensor:
        """Return (N,) P(first is better); a tie counts half.

        Raises:
            ConfigError: the loss was of no probability.
        """
        if self.pair is None:
            raise ConfigError(
                f"reward '{NAME}' was trained by a loss that knows no probability of a pair; calibrate its scores with"
                " 'diffpref reward calibrate'"
            )
        return self.pair(self.say(first, prompts), self.say(second, prompts))

    @torch.no_grad()
    def say(self, media: Sequence[Media], prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return everything that the model says: ``score`` (N,), ``log_std`` (N,), ``scores`` (N, A), ..."""
        check_lengths(NAME, media, prompts)
        items = _items(self.info.media, media)
        parts = [self.ask(items[rows], prompts[rows]) for rows in _slices(len(items), self.micro_batch)]
        if not parts:
            return {"score": torch.zeros(0), "scores": torch.zeros(0, len(self.info.aspects))}
        return {name: torch.cat([part[name].float().cpu() for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class TrainedOnPictures(Trained):
    """A reward of pictures, through which gradients pass.

    Args:
        ask_pixels: of (N, 3, H, W) pixels in [0, 1] and N prompts.
    """

    ask_pixels: Callable[[Tensor, Sequence[str]], dict[str, Tensor]] = lambda pixels, prompts: {}

    def score_tensors(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (N,) float32, differentiable in ``pixels`` (N, 3, H, W) in [0, 1].

        Raises:
            ShapeError: wrong shape, or not as many prompts as pictures.
            ConfigError: the model compares two items and scores none.
        """
        check_lengths(NAME, pixels, prompts)
        parts = [self.ask_pixels(pixels[rows], prompts[rows]) for rows in _slices(len(pixels), self.micro_batch)]
        return torch.cat([_score(part) for part in parts]) if parts else pixels.new_zeros(0)


def _score(said: Mapping[str, Tensor]) -> Tensor:
    """Return the score, or the mean of several aspects."""
    if "score" in said:
        return said["score"].float()
    if "scores" in said:
        return said["scores"].float().mean(dim=1)
    raise ConfigError(f"reward '{NAME}' was trained by an objective of embeddings, which compare; use it as a judge")


def _slices(length: int, size: int) -> Iterator[slice]:
    yield from (slice(start, start + size) for start in range(0, length, size))


def _items(kind: str, media: Sequence[Media]) -> list[Any]:
    if kind == "video":
        return [[Image.fromarray(frame) for frame in clip.frames] for clip in as_clips(NAME, media)]
    return as_texts(NAME, media) if kind == "text" else [[picture] for picture in as_pictures(NAME, media)]


@registry.register(NAME)
def load_trained(
    path: str | None = None,
    *,
    base: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
) -> Reward:
    """Load what a run of ``diffpref reward train`` left.

    Args:
        path: folder of the run.
        base: the model that it was trained from, where it no longer lies at its place.
        device: where it runs.
        precision: of the networks; heads, cosines and scales are always float32.
        micro_batch: items that run at once.

    Raises:
        ConfigError: no path.
        ModelError: no such run, or its base is missing.
    """
    if path is None:
        raise ConfigError("reward 'trained' needs a path: the folder of a run of 'diffpref reward train'")
    files, folder = RewardFiles.find(resolve(path))
    if files.folder == "model" and files.family != "head_scorer":
        base = str(folder / "model")  # whole: what it was trained from is not needed
    made = _of_text if files.media == "text" else _of_towers
    ask, pixels = made(files, folder, base or files.base, device, PRECISIONS[precision])
    pair = PairModel(**files.pair) if files.pair else None
    parts = [content_version(folder / name) for name in (files.folder, "heads") if (folder / name).is_dir()]
    version = hashlib.sha256(" ".join([*parts, files.base]).encode()).hexdigest()[:12]
    largest = files.scorer["max_logit_scale"] if files.scorer.get("head") == "cosine" else SPREAD
    info = RewardInfo(
        name=NAME,
        version="+".join([f"sha256-{version}", *([precision] if precision != "float32" else [])]),
        licence="Apache-2.0" if files.base.startswith(PREFIX) else "as its base model",
        range=(-largest, largest),
        pair_scale=pair.pair_scale if pair else None,
        media=files.media,
        aspects=files.aspects,
        differentiable=files.media == "image",
    )
    if files.media == "image":
        return TrainedOnPictures(info, ask, pair, micro_batch, pixels)
    return Trained(info, ask, pair, micro_batch)


def _of_towers(files: RewardFiles, folder: Path, base: str, device: str, precision: str) -> tuple[Ask, Any]:
    """Return the asking of a model of pictures or clips."""
    kind: Any = registry_of_families(files.family)
    says, scorer = frozenset(files.says), Scorer.model_validate(files.scorer)
    parts = ("towers",) if kind.encodes_once else ("network", "text")
    family: Any = load_family(files.family, base, parts=parts, precision=precision, revision=files.revision)
    family.settle(says, scorer, Random(0), files.size)
    if kind.encodes_once or files.folder == "lora":
        family.apply(str(folder / files.folder), files.folder == "lora")
    family.install_heads(says, str(folder / "heads") if files.heads else None, files.size)
    family.to(device)
    for module in (family.network, family.heads):
        if module is not None:
            module.requires_grad_(False).eval()
    count = scorer.frames

    def ask(items: Sequence[Sequence[Image.Image]], prompts: Sequence[str]) -> dict[str, Tensor]:
        from diffpref.data.clips import spaced

        shown = [item if count is None else [item[n] for n in spaced(len(item), count)] for item in items]
        return answer(family.encode_media(shown), prompts)

    def answer(rows: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        told = family.encode_prompts(prompts).to(device)
        said: dict[str, Tensor] = family.answer(
            family.network, Rows("score", {"media": rows.to(device)}, told, {}), says, trained=True
        )
        return said

    processor = family.told.processor
    framing = Framing(processor.crop_size["height"], tuple(processor.image_mean), tuple(processor.image_std))

    def pixels(values: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        framed = framing(values.to(device)).unsqueeze(1)
        return answer(image_features(family.model, framed) if kind.encodes_once else framed, prompts)

    return ask, pixels


def registry_of_families(name: str) -> Any:
    """Return a family's class."""
    from diffpref.models import registry as families

    return families.get(name)


def _of_text(files: RewardFiles, folder: Path, base: str, device: str, precision: str) -> tuple[Ask, Any]:
    """Return the asking of a language model with heads."""
    family: Any = load_family(files.family, base, precision=precision, revision=files.revision)
    if files.folder == "lora":
        family.apply(str(folder / files.folder), lora=True)
    family.heads = load_heads(folder / "heads")
    family.to(device)
    family.heads.to(device).requires_grad_(False)
    says = frozenset(files.says)
    pad = family.tokenizer.pad_token_id

    def ask(items: Sequence[str], prompts: Sequence[str]) -> dict[str, Tensor]:
        ids, labels, mask = [], [], []
        for item, prompt in zip(items, prompts, strict=True):
            begin, (end,) = family.encode(prompt, [item])
            ids.append(torch.tensor([*begin, *end]))
            labels.append(torch.tensor([*[-100] * len(begin), *end]))
            mask.append(torch.ones(len(begin) + len(end), dtype=torch.int64))

        def padded(rows: list[Tensor], value: int) -> Tensor:
            return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value).to(device)

        inputs = {"ids": padded(ids, pad), "labels": padded(labels, -100)}
        rows = Rows("tokens", inputs, Conditioning({"attention_mask": padded(mask, 0)}), {})
        said = family.answer(family.network, rows, says, trained=True)
        return {name: said[name] for name in files.says}

    return ask, None
