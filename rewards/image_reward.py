"""ImageReward v1.0 (Xu et al., NeurIPS 2023, arXiv 2304.05977): BLIP with a head, trained on 137k comparisons."""

from __future__ import annotations

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Reward
from diffpref.rewards import registry
from diffpref.rewards._blip_reward import load_blip
from diffpref.rewards._published import Published
from diffpref.rewards._weights import Precision

__all__ = ["MEAN", "PUBLISHED", "STD", "load_image_reward"]

PUBLISHED = Published("image_reward", "THUDM/ImageReward", ("ImageReward.pt", "med_config.json"), "Apache-2.0")
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the head's output on the authors' prompts; scores are about standard normal there."""


@registry.register("image_reward")
def load_image_reward(
    path: str | None = None,
    *,
    tokenizer: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
    allow_pickle: bool = False,
) -> Reward:
    """Load ImageReward; scores are roughly -2.3 to 2, and differentiable in the picture (ReFL trains on that).

    A prompt is read up to 35 word pieces, as in the official code. P(a better than b) is the sigmoid of the difference
    before normalisation.

    Args:
        path: hub id or folder with ``ImageReward.pt``, or ``ImageReward.safetensors`` with the same tensors, and
            ``med_config.json``.
        tokenizer: folder or hub id of ``bert-base-uncased``; default: the folder where it has a ``vocab.txt``, else the
            hub's.
        device: where it runs.
        precision: of the towers; the head is always computed in float32.
        micro_batch: pictures that run at once.
        allow_pickle: open ``ImageReward.pt``, once, with weights-only loading.

    Raises:
        ModelError: a file is missing, a tensor is missing, unknown or of another shape.
    """
    return load_blip(
        PUBLISHED,
        path,
        tokenizer=tokenizer,
        mean=MEAN,
        std=STD,
        device=device,
        precision=precision,
        micro_batch=micro_batch,
        allow_pickle=allow_pickle,
    )
