"""CLIP score: the cosine of an image with its prompt (Hessel et al., EMNLP 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from torch import Tensor

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Reward, RewardInfo
from diffpref.core.errors import ConfigError, ModelError, suggest
from diffpref.rewards import registry
from diffpref.rewards._clip_reward import DualEncoderReward
from diffpref.rewards._dual_encoder import DualEncoder
from diffpref.rewards._hf_clip import load_hf_clip
from diffpref.rewards._open_clip import CONFIG, from_tensors, is_open_clip, open_folder
from diffpref.rewards._pickles import read_tensors
from diffpref.rewards._published import Published
from diffpref.rewards._weights import Precision, content_version, licence_of

__all__ = ["HUB_ID", "OPEN_CLIP", "PUBLISHED", "Output", "load_clip", "scaled"]

HUB_ID = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""The CLIP of the Diffusion-DPO papers; others report ``openai/clip-vit-large-patch14``, whose values differ."""

PUBLISHED = Published("clip", HUB_ID, ("config.json", "*.safetensors|*.bin"), "MIT", bundled="shapes-clip")
"""The layout of transformers."""
_WORDS = ("tokenizer*.json", "special_tokens_map.json", "vocab.json", "merges.txt")
OPEN_CLIP = Published("clip", HUB_ID, (CONFIG, "open_clip_model.safetensors|*.bin|*.safetensors"), "MIT", also=_WORDS)
"""The layout of open_clip."""

Output: TypeAlias = Literal["cosine", "clip_score", "torchmetrics", "hessel"]
_FACTORS = {"cosine": 1.0, "clip_score": 100.0, "torchmetrics": 100.0, "hessel": 2.5}


def scaled(cosine: Tensor, output: Output) -> Tensor:
    """Return CLIP scores on one of the published scales.

    Args:
        cosine: (N,) of each image with its prompt.
        output: ``"cosine"`` as Diffusion-DPO prints it (about 0.2..0.4); ``"clip_score"``, 100 times that;
            ``"torchmetrics"``, the same but 0 below 0; ``"hessel"``, max(2.5 * cosine, 0).

    Returns:
        (N,) of the dtype of ``cosine``.
    """
    score = _FACTORS[output] * cosine
    return score.clamp(min=0) if output in ("torchmetrics", "hessel") else score


@registry.register("clip")
def load_clip(
    path: str | None = None,
    *,
    backend: Literal["auto", "transformers", "open_clip"] = "auto",
    architecture: str | None = None,
    quick_gelu: bool | None = None,
    output: Output = "cosine",
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
    allow_pickle: bool = False,
) -> Reward:
    """Load a CLIP model of transformers or of open_clip as a reward. Which model it is matters as much as the scale.

    Args:
        path: hub id or folder of either layout; with ``architecture``, a checkpoint file or open_clip's tag of
            published weights.
        backend: ``"auto"``: what a folder is laid out for, where it is both, and for a hub id, transformers.
        architecture: open_clip's name, such as ``ViT-L-14``, for a checkpoint file or a tag such as ``openai``.
        quick_gelu: whether weights of open_clip's layout need QuickGELU, as OpenAI's do. Default: as the config, the
            tag or the weights themselves tell.
        output: see `scaled`.
        device: where it runs.
        precision: of the networks; the cosine is always computed in float32.
        micro_batch: images that run at once.
        allow_pickle: accept weights that only a pickle holds.

    Raises:
        ConfigError: options that contradict each other, or an unknown architecture or tag.
        ModelError: no such model there, or weights that may not be opened.
    """
    if architecture is not None:
        if backend == "transformers":
            raise ConfigError("reward 'clip': an architecture is open_clip's; leave out backend: transformers")
        encoder, version = _of_architecture(
            path, architecture, quick_gelu, precision=precision, device=device, allow_pickle=allow_pickle
        )
    else:
        place = PUBLISHED.place(path)
        folder = Path(place)
        if backend == "auto":
            only = is_open_clip(folder) and not (folder / "config.json").is_file()
            backend = "open_clip" if only else "transformers"
        if backend == "open_clip":
            encoder, version = _of_open_clip(
                place, quick_gelu, precision=precision, device=device, allow_pickle=allow_pickle
            )
        else:
            if quick_gelu is not None:
                raise ConfigError("reward 'clip': quick_gelu is for open_clip; transformers' config.json tells its own")
            if folder.exists():
                PUBLISHED.check(folder)
            encoder, commit = load_hf_clip(
                place, processor=None, device=device, precision=precision, allow_pickle=allow_pickle
            )
            version = content_version(folder) if folder.is_dir() else f"{place}@{commit[:12]}"
    factor = _FACTORS[output]
    clamped = output in ("torchmetrics", "hessel")
    suffixes = [output, *(["quickgelu"] if quick_gelu else []), *([precision] if precision != "float32" else [])]

    def scale(cosine: Tensor, prompts: Sequence[str]) -> Tensor:
        return scaled(cosine, output)

    info = RewardInfo(
        name="clip",
        version="+".join([version, *suffixes]),
        licence=licence_of(path, PUBLISHED.licence if path == HUB_ID else "see the model's card"),
        range=(0.0 if clamped else -factor, factor),
        pair_scale=None if clamped else encoder.logit_scale / factor,
        differentiable=True,
    )
    return DualEncoderReward(info, encoder, scale, micro_batch)


def _of_open_clip(
    place: str, quick_gelu: bool | None, *, precision: Precision, device: str, allow_pickle: bool
) -> tuple[DualEncoder, str]:
    """Load open_clip's layout from a folder or the hub; return the version too."""
    folder = Path(place)
    if folder.exists():
        OPEN_CLIP.check(folder)
        version = content_version(folder)
    else:
        folder = _fetched(place, (CONFIG,), allow_pickle)
        version = f"{place}@{folder.name[:12]}"
    encoder = open_folder(folder, precision=precision, device=device, allow_pickle=allow_pickle, quick_gelu=quick_gelu)
    return encoder, f"{version}+open_clip"


def _of_architecture(
    path: str | None,
    architecture: str,
    quick_gelu: bool | None,
    *,
    precision: Precision,
    device: str,
    allow_pickle: bool,
) -> tuple[DualEncoder, str]:
    """Load a checkpoint file, or the weights of one of open_clip's tags, into an architecture by its name."""
    import open_clip

    if path is None:
        raise ConfigError(f"reward 'clip': with architecture '{architecture}' give a checkpoint file or a tag as path")
    file, framing = Path(path).expanduser(), None
    if file.is_file():
        version = content_version(file)
    else:
        tag = open_clip.get_pretrained_cfg(architecture, path)
        hub_id = tag.get("hf_hub", "").rstrip("/")
        if not hub_id.count("/") == 1:
            tags = open_clip.list_pretrained_tags_by_model(architecture)
            listed = f"; its tags: {', '.join(tags)}" if tags and not tag else ""
            raise ConfigError(
                f"reward 'clip': '{path}' is no file and no tag on the hub for open_clip's '{architecture}'"
                f"{suggest(path, tags)}{listed}"
            )
        folder = _fetched(hub_id, (), allow_pickle)
        file = OPEN_CLIP.file(folder, OPEN_CLIP.files[1])
        framing = {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in tag}
        quick_gelu = bool(tag.get("quick_gelu")) if quick_gelu is None else quick_gelu
        version = f"{architecture}/{path}@{folder.name[:12]}"
    encoder = from_tensors(
        file,
        architecture,
        read_tensors(file, allow_pickle=allow_pickle),
        precision=precision,
        device=device,
        framing=framing,
        quick_gelu=quick_gelu,
    )
    return encoder, version


def _fetched(hub_id: str, files: tuple[str, ...], allow_pickle: bool) -> Path:
    """Fetch open_clip's files: its safetensors, and the pickle only where there are none and it may be opened."""
    safe = Published("clip", hub_id, (*files, "open_clip_model.safetensors"), OPEN_CLIP.licence, also=_WORDS)
    try:
        return safe.fetch(hub_id)
    except ModelError:
        if not allow_pickle:
            raise
    return Published("clip", hub_id, (*files, "open_clip_pytorch_model.bin"), OPEN_CLIP.licence, also=_WORDS).fetch(
        hub_id
    )
