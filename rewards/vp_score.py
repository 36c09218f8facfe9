"""VP-Score (Wu et al., NeurIPS 2024, arXiv 2404.15100): ImageReward's architecture, trained on labels of VisionPrefer.

No published weights are known: neither a repository nor a file was found. It reads a checkpoint of your own training in
ImageReward's layout. That the authors' model has this architecture is from memory and not verified.
"""

from __future__ import annotations

from diffpref.core.annotations import Number, Positive, PositiveInt
from diffpref.core.contracts import Reward
from diffpref.rewards import registry
from diffpref.rewards._blip_reward import load_blip
from diffpref.rewards._published import Published
from diffpref.rewards._weights import Precision

__all__ = ["PUBLISHED", "load_vp_score"]

PUBLISHED = Published(
    "vp_score",
    "your own training, for none published is known",
    ("VPScore.pt", "med_config.json"),
    "that of your weights",
    on_hub=False,
)


@registry.register("vp_score")
def load_vp_score(
    path: str | None = None,
    *,
    mean: Number = 0.0,
    std: Positive = 1.0,
    tokenizer: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
    allow_pickle: bool = False,
) -> Reward:
    """Load a reward model of ImageReward's layout that was trained on VisionPrefer.

    Args:
        path: folder with ``VPScore.pt`` or ``VPScore.safetensors``, a state dict as ``ImageReward.pt`` is, and the text
            tower's ``med_config.json``.
        mean: of the head's output on your data; it is subtracted.
        std: of the head's output on your data; scores are divided by it.
        tokenizer: folder or hub id of ``bert-base-uncased``; default: the folder where it has a ``vocab.txt``, else the
            hub's.
        device: where it runs.
        precision: of the towers; the head is always computed in float32.
        micro_batch: pictures that run at once.
        allow_pickle: open a pickle, once, with weights-only loading.

    Raises:
        ModelError: a file is missing, a tensor is missing, unknown or of another shape.
    """
    return load_blip(
        PUBLISHED,
        path,
        tokenizer=tokenizer,
        mean=mean,
        std=std,
        device=device,
        precision=precision,
        micro_batch=micro_batch,
        allow_pickle=allow_pickle,
        suffix="" if (mean, std) == (0.0, 1.0) else f"mean{mean:g}-std{std:g}",
    )
