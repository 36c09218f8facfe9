"""The two published human preference scores, which differ in their weights only."""

from __future__ import annotations

from pathlib import Path

from diffpref.core.contracts import Reward, RewardInfo
from diffpref.core.errors import ConfigError, ModelError
from diffpref.rewards._clip_reward import DualEncoderReward
from diffpref.rewards._open_clip import from_tensors, is_open_clip, open_folder
from diffpref.rewards._pickles import read_tensors
from diffpref.rewards._published import Published
from diffpref.rewards._weights import Precision, content_version, licence_of

__all__ = ["ARCHITECTURE", "HUB_ID", "load_version", "published"]

HUB_ID = "xswu/HPSv2"
ARCHITECTURE = "ViT-H-14"


def published(reward: str, file: str) -> Published:
    """Return what one of the two reads."""
    return Published(reward, HUB_ID, (file,), "Apache-2.0", bundled="shapes-hps")


def _checkpoint(what: Published, place: str, allow_pickle: bool) -> Path:
    """Return the checkpoint's file. Nothing is fetched that may not be opened then."""
    if Path(place).exists():
        found = what.find(place)
        return found if found.is_file() else what.file(found, what.files[0])
    try:
        return what.file(what.fetch(place, offline=not allow_pickle), what.files[0])
    except ModelError as error:
        if allow_pickle:
            raise
        raise ModelError(
            f"{place}: {what.files[0]} is a pickle, which may run code; pass allow_pickle=true if you trust it: it is"
            " fetched, read with weights-only loading, once, and kept as safetensors"
        ) from error


def load_version(
    what: Published,
    version: str,
    path: str | None,
    *,
    architecture: str,
    multiply_100: bool,
    device: str,
    precision: Precision,
    micro_batch: int,
    allow_pickle: bool,
) -> Reward:
    """Load one of the two.

    Args:
        what: from `published`.
        version: of scores by the hub's own file.
        path: of the user.
        architecture: the factories' option, as are all others.
        multiply_100: see there.
        device: see there.
        precision: see there.
        micro_batch: see there.
        allow_pickle: see there.
    """
    place = what.place(path)
    if is_open_clip(Path(place)):
        if architecture != ARCHITECTURE:
            raise ConfigError(f"reward '{what.reward}': the architecture of {place} is what its config says")
        encoder = open_folder(Path(place), precision=precision, device=device, allow_pickle=allow_pickle)
        name = content_version(Path(place))
    else:
        file = _checkpoint(what, place, allow_pickle)
        tensors = read_tensors(file, allow_pickle=allow_pickle)
        encoder = from_tensors(file, architecture, tensors, precision=precision, device=device)
        name = content_version(file) if Path(place).exists() else version
    factor = 100.0 if multiply_100 else 1.0
    suffixes = [*(["x100"] if multiply_100 else []), *([precision] if precision != "float32" else [])]
    info = RewardInfo(
        name=what.reward,
        version="+".join([name, *suffixes]),
        licence=licence_of(path, what.licence),
        range=(-factor, factor),
        pair_scale=encoder.logit_scale / factor,
        differentiable=True,
    )
    return DualEncoderReward(info, encoder, lambda cosine, prompts: factor * cosine, micro_batch)
