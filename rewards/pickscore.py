"""PickScore v1: a CLIP model fine-tuned on Pick-a-Pic (Kirstain et al., NeurIPS 2023, arXiv 2305.01569)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Reward, RewardInfo
from diffpref.core.errors import ModelError
from diffpref.rewards import registry
from diffpref.rewards._clip_reward import DualEncoderReward
from diffpref.rewards._hf_clip import load_hf_clip
from diffpref.rewards._published import Published
from diffpref.rewards._weights import Precision, content_version, licence_of

__all__ = ["HUB_ID", "PUBLISHED", "Output", "load_pickscore", "scaled"]

HUB_ID = "yuvalkirstain/PickScore_v1"
PROCESSOR_ID = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"  # the model's repository lacks files of its processor
PUBLISHED = Published("pickscore", HUB_ID, ("config.json", "*.safetensors|*.bin"), "MIT", bundled="shapes-pickscore")
Output: TypeAlias = Literal["logit", "cosine", "prob", "div26"]


def scaled(cosine: Tensor, prompts: Sequence[str], *, logit_scale: float, output: Output) -> Tensor:
    """Return PickScores on one of the published scales.

    Args:
        cosine: (N,) of each image with its prompt.
        prompts: N texts.
        logit_scale: tau = exp of the model's parameter, about 100.
        output: ``"logit"``: tau * cosine, typically 19..24 (the README); ``"cosine"``: as Diffusion-DPO's
            selector prints it, about 0.2; ``"div26"``: the logit / 26 (Flow-GRPO); ``"prob"``: the softmax of logits
            over the images of this call that share a prompt, the only scale on which an item does not stand alone.

    Returns:
        (N,) of the dtype of ``cosine``.
    """
    logit = logit_scale * cosine
    if output == "cosine":
        return cosine
    if output == "logit":
        return logit
    if output == "div26":
        return logit / 26
    probability = torch.empty_like(logit)
    for prompt in set(prompts):
        rows = [row for row, other in enumerate(prompts) if other == prompt]
        probability[rows] = logit[rows].softmax(dim=0)
    return probability


@registry.register("pickscore")
def load_pickscore(
    path: str | None = None,
    *,
    output: Output = "logit",
    processor: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
    allow_pickle: bool = False,
) -> Reward:
    """Load PickScore.

    Args:
        path: hub id or folder.
        output: see `scaled`.
        processor: hub id or folder of tokenizer and image processor; default: the folder's own, for the hub LAION's.
        device: where it runs.
        precision: of the networks; the cosine is always computed in float32.
        micro_batch: images that run at once.
        allow_pickle: accept weights that only a pickle holds.
    """
    folder, given = PUBLISHED.place(path), processor
    if Path(folder).exists():
        PUBLISHED.check(Path(folder))
        if processor is None and not any((Path(folder) / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            raise ModelError(
                f"{folder} has no tokenizer; the published repository's is not complete either: pass processor, the hub"
                f" id '{PROCESSOR_ID}' or a folder with its tokenizer and preprocessor_config.json"
            )
    if processor is None and folder == HUB_ID:
        processor = PROCESSOR_ID
    encoder, commit = load_hf_clip(
        folder, processor=processor, device=device, precision=precision, allow_pickle=allow_pickle
    )
    words = "" if given is None else content_version(Path(given)) if Path(given).is_dir() else given
    tau = encoder.logit_scale
    factor = {"logit": tau, "cosine": 1.0, "div26": tau / 26, "prob": None}[output]
    version = "v1" if folder == HUB_ID else f"{folder}@{commit[:12]}"
    if Path(folder).is_dir():
        version = content_version(Path(folder))
    info = RewardInfo(
        name="pickscore",
        version="+".join(part for part in (version, words, output, precision) if part not in ("", "float32")),
        licence=licence_of(path, "MIT"),
        range=(0.0, 1.0) if factor is None else (-factor, factor),
        pair_scale=None if factor is None else tau / factor,
        differentiable=True,
        itemwise=factor is not None,
    )

    def scale(cosine: Tensor, prompts: Sequence[str]) -> Tensor:
        return scaled(cosine, prompts, logit_scale=tau, output=output)

    return DualEncoderReward(info, encoder, scale, micro_batch)
