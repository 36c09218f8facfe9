"""Detectors of transformers: boxes (DETR and its kin), masks (Mask2Former, MaskFormer), open vocabularies (OWL).

Pictures run one by one, in float32, so that what is found does not depend on the batch and a threshold means the same
everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from diffpref.core.errors import ModelError
from diffpref.rewards._installed import is_installed
from diffpref.rewards._objects import Box, Detector, Found
from diffpref.rewards._weights import UNREADABLE, content_version, first_line, refuse_pickle

__all__ = ["COCO_NAMES", "BoxDetector", "MaskDetector", "OpenDetector", "load_detector"]

COCO_NAMES = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}
"""COCO's names -> those by which GenEval's prompts call the things."""
OPEN_TYPES = ("owlvit", "owlv2")
MASK_TYPES = ("mask2former", "maskformer")


def _names(config: Any) -> dict[int, str]:
    return {int(number): COCO_NAMES.get(name, name) for number, name in config.id2label.items()}


class _Network:
    """A loaded model with its processor.

    Args:
        model: of transformers.
        processor: of its pictures, and of texts for open vocabularies.
        version: of its weights.
        licence: of its weights.
    """

    classes: frozenset[str] | None

    def __init__(self, model: Any, processor: Any, version: str, licence: str) -> None:
        self.model, self.processor, self.version, self.licence = model, processor, version, licence

    def _run(self, **inputs: Any) -> Any:
        tensors = self.processor(return_tensors="pt", **inputs)
        with torch.no_grad():
            return self.model(**{name: tensor.to(self.model.device) for name, tensor in tensors.items()})


class BoxDetector(_Network):
    """A model of ``AutoModelForObjectDetection``."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._names = _names(self.model.config)
        self.classes = frozenset(self._names.values())

    def __call__(self, picture: Image.Image, classes: Sequence[str], threshold: float) -> list[Found]:
        """Return the objects of these classes above the threshold."""
        outputs = self._run(images=picture)
        sizes = [(picture.height, picture.width)]
        [found] = self.processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=sizes)
        rows = zip(found["labels"].tolist(), found["boxes"].tolist(), found["scores"].tolist(), strict=True)
        named = (Found(self._names.get(label, ""), _box(box), score) for label, box, score in rows)
        return [one for one in named if one.name in classes]


class MaskDetector(_Network):
    """A Mask2Former or MaskFormer model for instances; a box is the smallest around the mask.

    The score is the class's probability times the mean of the mask's probabilities inside the mask, as Mask2Former
    scores instances for COCO.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._names = _names(self.model.config)
        self.classes = frozenset(self._names.values())

    def __call__(self, picture: Image.Image, classes: Sequence[str], threshold: float) -> list[Found]:
        """Return the objects of these classes above the threshold."""
        outputs = self._run(images=picture)
        shares = outputs.class_queries_logits[0].float().softmax(dim=-1)[:, :-1]  # the last is 'no object'
        found = []
        for query, label in (shares > threshold).nonzero().tolist():
            name = self._names.get(label, "")
            if name not in classes:
                continue
            logits = outputs.masks_queries_logits[0, query].float()
            size = (picture.height, picture.width)
            logits = functional.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)[0, 0]
            inside = logits > 0
            if not inside.any():
                continue
            score = float(shares[query, label] * logits[inside].sigmoid().mean())
            if score > threshold:
                mask = inside.cpu().numpy()
                found.append(Found(name, _around(mask), score, mask))
        return found


class OpenDetector(_Network):
    """OWL-ViT or OWLv2, asked for the classes by name; each box goes to the class that fits it best."""

    classes = None

    def __call__(self, picture: Image.Image, classes: Sequence[str], threshold: float) -> list[Found]:
        """Return the objects of these classes above the threshold."""
        outputs = self._run(images=picture, text=[list(classes)], truncation=True)
        [found] = self.processor.post_process_grounded_object_detection(
            outputs, threshold=threshold, target_sizes=[(picture.height, picture.width)]
        )
        rows = zip(found["labels"].tolist(), found["boxes"].tolist(), found["scores"].tolist(), strict=True)
        return [Found(classes[label], _box(box), score) for label, box, score in rows]


def _box(sides: Sequence[float]) -> Box:
    left, top, right, bottom = sides
    return left, top, right, bottom


def _around(mask: np.ndarray) -> Box:
    """Return the smallest box around a mask that is not empty; its right and lower sides lie behind the last pixel."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def load_detector(path: str, device: str) -> Detector:
    """Load a detector from a folder or the hub; which of the three kinds it is, its config says.

    Raises:
        ModelError: no detector of these kinds, or no weights that may be loaded.
    """
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(path)
        kind, auto = _kind(config.model_type, path)
        if Path(path).is_dir():
            refuse_pickle(Path(path), allow_pickle=False)
        model, loaded = auto.from_pretrained(path, use_safetensors=True, dtype=torch.float32, output_loading_info=True)
        read = transformers.AutoProcessor if kind is OpenDetector else transformers.AutoImageProcessor
        processor = read.from_pretrained(path)
    except UNREADABLE as error:
        raise ModelError(f"{path}: no detector could be loaded: {first_line(error)}") from error
    if missing := sorted(loaded["missing_keys"]):  # transformers would draw these at random
        raise ModelError(f"{path} lacks {len(missing)} weights of its detector, such as {missing[0]}")
    model.eval().requires_grad_(False).to(device)
    commit = getattr(config, "_commit_hash", None) or ""
    version = content_version(Path(path)) if Path(path).is_dir() else f"{path}@{commit[:12]}"
    found: Detector = kind(model, processor, version, "see the detector's card")
    return found


def _kind(model_type: str, path: str) -> tuple[Any, Any]:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES as BOX_TYPES

    if model_type in OPEN_TYPES:
        return OpenDetector, transformers.AutoModelForZeroShotObjectDetection
    if model_type in MASK_TYPES and not is_installed("scipy"):  # their loss asks for it when it is made
        raise ModelError(f"{path}: '{model_type}' of transformers needs scipy; pip install 'diffpref[geneval]'")
    if model_type in MASK_TYPES:
        return MaskDetector, transformers.AutoModelForUniversalSegmentation
    if model_type in BOX_TYPES:
        return BoxDetector, transformers.AutoModelForObjectDetection
    raise ModelError(
        f"{path}: a '{model_type}' model is no detector that can be read; expected one of {', '.join(MASK_TYPES)},"
        f" {', '.join(OPEN_TYPES)}, detr or its kin"
    )
