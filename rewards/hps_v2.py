"""Human Preference Score v2.0 (Wu et al., arXiv 2306.09341): a CLIP ViT-H/14 fine-tuned on HPDv2."""

from __future__ import annotations

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Reward
from diffpref.rewards import registry
from diffpref.rewards._hps import ARCHITECTURE, load_version, published
from diffpref.rewards._weights import Precision

__all__ = ["PUBLISHED", "load_hps_v2"]

PUBLISHED = published("hps_v2", "HPS_v2_compressed.pt")


@registry.register("hps_v2")
def load_hps_v2(
    path: str | None = None,
    *,
    architecture: str = ARCHITECTURE,
    multiply_100: bool = False,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
    allow_pickle: bool = False,
) -> Reward:
    """Load HPS v2: the cosine of picture and prompt, about 0.15..0.35. Its values and v2.1's cannot be compared.

    Args:
        path: the hub id or the folder of ``HPS_v2_compressed.pt``; that file, or one converted to safetensors; or a
            folder as open_clip writes it (``open_clip_config.json``, weights, tokenizer).
        architecture: open_clip's name for a checkpoint file that is not the published one.
        multiply_100: the benchmark's scale (20..34) in place of the cosine.
        device: where it runs.
        precision: of the networks; the cosine is always computed in float32.
        micro_batch: pictures that run at once.
        allow_pickle: open a pickle, with weights-only loading. It is needed once: then it is kept as safetensors.
    """
    return load_version(
        PUBLISHED,
        "v2",
        path,
        architecture=architecture,
        multiply_100=multiply_100,
        device=device,
        precision=precision,
        micro_batch=micro_batch,
        allow_pickle=allow_pickle,
    )
