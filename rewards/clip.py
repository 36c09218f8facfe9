"""CLIP score: the cosine of an image with its prompt (Hessel et al., EMNLP 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Reward, RewardInfo
from diffpref.rewards import registry
from diffpref.rewards._clip_reward import DualEncoderReward
from diffpref.rewards._hf_clip import load_hf_clip
from diffpref.rewards._published import Published
from diffpref.rewards._weights import Precision, content_version, licence_of

__all__ = ["HUB_ID", "PUBLISHED", "load_clip"]

HUB_ID = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""The CLIP of the Diffusion-DPO papers; others report ``openai/clip-vit-large-patch14``, whose values differ."""

PUBLISHED = Published("clip", HUB_ID, ("config.json", "*.safetensors|*.bin"), "MIT", bundled="shapes-clip")


@registry.register("clip")
def load_clip(
    path: str | None = None,
    *,
    output: Literal["cosine", "clip_score"] = "cosine",
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
    allow_pickle: bool = False,
) -> Reward:
    """Load a transformers CLIP model as a reward.

    Args:
        path: hub id or folder.
        output: ``"cosine"`` as Diffusion-DPO prints it (about 0.2..0.4), or ``"clip_score"``, 100 times that.
        device: where it runs.
        precision: of the networks; the cosine is always computed in float32.
        micro_batch: images that run at once.
        allow_pickle: accept weights that only a pickle holds.
    """
    folder = PUBLISHED.place(path)
    if Path(folder).exists():
        PUBLISHED.check(Path(folder))
    encoder, commit = load_hf_clip(
        folder, processor=None, device=device, precision=precision, allow_pickle=allow_pickle
    )
    factor = 1.0 if output == "cosine" else 100.0
    version = content_version(Path(folder)) if Path(folder).is_dir() else f"{folder}@{commit[:12]}"
    info = RewardInfo(
        name="clip",
        version="+".join([version, output, *([precision] if precision != "float32" else [])]),
        licence=licence_of(path, "see the model's card"),
        range=(-factor, factor),
        pair_scale=encoder.logit_scale / factor,
        differentiable=True,
    )
    return DualEncoderReward(info, encoder, lambda cosine, prompts: factor * cosine, micro_batch)
