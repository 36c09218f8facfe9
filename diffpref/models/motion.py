"""Image models with motion modules between their layers: what a UNetMotionModel asks, whichever texts tell it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import UNetMotionModel

from diffpref.core.errors import ModelError
from diffpref.models.videos import VideoFamily

__all__ = ["MotionFamily"]


class MotionFamily(VideoFamily):
    """AnimateDiff's kind of video models.

    The checkpoint is a saved pipeline: a motion adapter is put into an image model once, by
    ``<Pipeline>.from_pretrained(image_model, motion_adapter=adapter).save_pretrained(folder)``. A LoRA adapts the
    attention of the image model and of the motion modules.
    """

    network_class = UNetMotionModel

    @classmethod
    def check(cls, path: str, config: Mapping[str, Any]) -> None:
        if config.get("_class_name") == "UNet2DConditionModel":
            raise ModelError(
                f"model.family: '{cls.name}' does not fit {path}, an image model without motion; put a motion adapter"
                f" into it with diffusers' {cls.pipeline_class.__name__}.from_pretrained(..., motion_adapter=adapter),"
                " and save it"
            )
        super().check(path, config)

    @property
    def max_frames(self) -> int:
        return int(self.config["motion_max_seq_length"])

    @classmethod
    def tiny_network(cls, **options: Any) -> UNetMotionModel:
        """Return a network of toy size for at most eight frames."""
        common: dict[str, Any] = {
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "num_attention_heads": 2,
            "motion_num_attention_heads": 2,
            "motion_max_seq_length": 8,
            "use_motion_mid_block": False,
        }
        return UNetMotionModel(**{**common, **options})
