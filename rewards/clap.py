"""CLAP: how near a sound is to its description (Wu et al., ICASSP 2023, arXiv 2211.06687)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Media, Reward, RewardInfo, Sound
from diffpref.core.errors import ModelError
from diffpref.rewards import registry
from diffpref.rewards._dual_encoder import paired_cosine
from diffpref.rewards._media import as_sounds, check_lengths
from diffpref.rewards._published import Published
from diffpref.rewards._resampling import resample
from diffpref.rewards._text_network import network_version, open_network
from diffpref.rewards._tokenizers import load_tokenizer
from diffpref.rewards._weights import UNREADABLE, Precision, first_line

__all__ = ["PUBLISHED", "ClapReward", "Windows", "load_clap", "quantised", "repeated", "windows_of"]

PUBLISHED = Published(
    "clap",
    "laion/clap-htsat-unfused",
    ("config.json", "preprocessor_config.json", "tokenizer.json", "*.safetensors|*.bin"),
    "Apache-2.0",
)
"""``laion/clap-htsat-fused`` is laid out alike. LAION's own files (``630k-audioset-best.pt`` and others) are of another
library; Microsoft's CLAP is another model, whose scores are not comparable."""
MAX_TOKENS = 77
Windows: TypeAlias = Literal["centre", "mean"]


def quantised(samples: np.ndarray) -> np.ndarray:
    """Return what is left of samples that were stored as 16-bit integers, as CLAP was trained on: (T,) float32."""
    integers = (np.clip(samples, -1.0, 1.0) * np.float32(32767)).astype(np.int16)
    return integers.astype(np.float32) / np.float32(32767)


def repeated(samples: np.ndarray, length: int) -> np.ndarray:
    """Return a sound that is too short as often as it fits whole, then silence up to the length."""
    whole = np.tile(samples, max(1, length // len(samples)))
    return np.pad(whole, (0, length - len(whole)))


def windows_of(samples: np.ndarray, length: int, windows: Windows) -> list[tuple[np.ndarray, int]]:
    """Return the stretches of a sound that are heard, each of this length, with how many samples are not repetition.

    The official code hears a random stretch of a longer sound, so that its scores change from call to call.

    Args:
        samples: (T,), T > 0.
        length: of what the model hears at once, samples.
        windows: ``"centre"``: the middle of a longer sound; ``"mean"``: all of it, one stretch after the other, the
            last, if it is shorter, `repeated`.
    """
    if len(samples) <= length:
        return [(repeated(samples, length), len(samples))]
    if windows == "centre":
        start = (len(samples) - length) // 2
        return [(samples[start : start + length], length)]
    parts = [samples[start : start + length] for start in range(0, len(samples), length)]
    return [(repeated(part, length), len(part)) for part in parts]


class ClapReward:
    """Scores a sound by the cosine with its prompt.

    Args:
        info: what it says of itself.
        model: a ``ClapModel``.
        features: its feature extractor, which makes mel spectrograms.
        tokenizer: of the text tower.
        windows: what is heard of a sound longer than the model hears at once; the score is the mean over windows, in
            which a last, shorter one counts by its length.
        micro_batch: windows that run at once.
    """

    def __init__(
        self,
        info: RewardInfo,
        model: Any,
        features: Any,
        tokenizer: Any,
        windows: Windows = "centre",
        micro_batch: int = 8,
    ) -> None:
        self._info, self.model, self.features, self.tokenizer = info, model, features, tokenizer
        self.windows, self.micro_batch = windows, micro_batch
        self._fused = bool(model.config.audio_config.enable_fusion)
        positions = model.config.text_config.max_position_embeddings - model.config.text_config.pad_token_id - 1
        self._max_tokens = min(MAX_TOKENS, positions)

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    @torch.no_grad()
    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 on the CPU: cosines, not rounded. (CRPO's labels are rounded to three decimals, which
        makes ties.)

        Raises:
            ShapeError: not as many prompts as sounds.
            DataError: an item is no sound.
        """
        check_lengths("clap", media, prompts, metadata)
        sounds = as_sounds("clap", media)
        if not sounds:
            return torch.zeros(0)
        heard = [self._heard(sound) for sound in sounds]
        owners = torch.tensor([number for number, parts in enumerate(heard) for _ in parts])
        audio = self._in_parts(self._audio_embeds, [part for parts in heard for part, _ in parts])
        counts = torch.tensor([count for parts in heard for _, count in parts], dtype=torch.float32)
        different = list(dict.fromkeys(prompts))
        texts = self._in_parts(self._text_embeds, different)
        rows = torch.tensor([different.index(prompt) for prompt in prompts])
        cosines = paired_cosine(audio, texts[rows[owners]])
        sums, total = (torch.zeros(len(sounds)).index_add_(0, owners, part) for part in (counts * cosines, counts))
        return sums / total

    def _heard(self, sound: Sound) -> list[tuple[np.ndarray, int]]:
        """Return the windows of a sound at the model's rate, each with how many of its samples are the sound's own."""
        samples = quantised(resample(sound.samples, sound.rate, self.features.sampling_rate))
        return windows_of(samples, self.features.nb_max_samples, self.windows)

    def _in_parts(self, embed: Any, items: Sequence[Any]) -> Tensor:
        size = self.micro_batch
        return torch.cat([embed(items[i : i + size]) for i in range(0, len(items), size)])

    def _audio_embeds(self, windows: Sequence[np.ndarray]) -> Tensor:
        # nothing is left to pad or to cut; the mode chooses the filters with which the model was trained
        mode = "fusion" if self._fused else "rand_trunc"
        rate = self.features.sampling_rate
        inputs = self.features(list(windows), truncation=mode, sampling_rate=rate, return_tensors="pt")
        told: dict[str, Tensor] = {}
        if self._fused:  # for a sound alone, both official codes set this flag, short as it is
            told["is_longer"] = torch.ones(len(windows), 1, dtype=torch.bool, device=self.model.device)
        mels = inputs.input_features.to(self.model.device, self.model.dtype)
        return _embeds(self.model.get_audio_features(input_features=mels, **told))

    def _text_embeds(self, prompts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        inputs = {name: tokens[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        return _embeds(self.model.get_text_features(**inputs))


def _embeds(output: Any) -> Tensor:
    """Return (N, D) float32 directions on the CPU; transformers 5 answers with an object that holds the embedding."""
    embeds: Tensor = getattr(output, "pooler_output", output)
    return functional.normalize(embeds.float(), dim=-1).cpu()


@registry.register("clap")
def load_clap(
    path: str | None = None,
    *,
    windows: Windows = "centre",
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 8,
    allow_pickle: bool = False,
) -> Reward:
    """Load CLAP. Scores are cosines, about 0.2..0.6 for sounds that fit.

    Sounds of any rate are resampled to the model's (48 kHz) with a windowed sinc of our own; the official code uses
    librosa, whose filter differs where nobody hears.

    Args:
        path: hub id or folder of a transformers checkpoint, see `PUBLISHED`.
        windows: of a sound longer than the ten seconds that the model hears at once: ``"centre"`` or the ``"mean"``
            over consecutive windows. Both are the same at each call.
        device: where it runs.
        precision: of the networks; the cosine is always computed in float32.
        micro_batch: windows that run at once.
        allow_pickle: accept weights that only a pickle holds.

    Raises:
        ConfigError: no path.
        ModelError: not a CLAP model, or weights are missing or may not be loaded.
    """
    from transformers import ClapFeatureExtractor, ClapModel

    folder = str(PUBLISHED.find(path))
    model, found = open_network(
        "clap", ClapModel, folder, device=device, precision=precision, allow_pickle=allow_pickle
    )
    try:
        features = ClapFeatureExtractor.from_pretrained(folder)
    except UNREADABLE as error:
        raise ModelError(f"{path}: no feature extractor could be loaded: {first_line(error)}") from error
    tokenizer = load_tokenizer(folder, model.config.text_config.vocab_size)
    seconds = features.nb_max_samples / features.sampling_rate
    info = RewardInfo(
        name="clap",
        version="+".join([network_version(model, found), windows, *([precision] if precision != "float32" else [])]),
        licence=PUBLISHED.licence,
        range=(-1.0, 1.0),
        media="audio",
        preprocessing=f"mono+{features.sampling_rate}Hz+int16+repeatpad{seconds:g}s+{windows}",
    )
    return ClapReward(info, model, features, tokenizer, windows, micro_batch)
