"""Multi-dimensional Preference Score (Zhang et al., CVPR 2024): a CLIP whose picture reads what a condition asks for.

All tokens of picture and text are projected; the picture's attend to those tokens of the text that the condition's
words are about; the score is ``exp(logit_scale)`` times the cosine of the text with the picture's first token after it.

The authors' file, ``MPS_overall_checkpoint.pth``, is a whole module that was pickled, which weights-only loading cannot
open: write its state dict once, in its authors' environment, as safetensors; or take the mirror on the hub, which
others made. The parameters' names are inferred from the official code (``model.*`` as in transformers' CLIPModel,
``cross_model.*``) and from the mirror's (the same below ``mps.``); neither file was seen. Only weights trained on
overall preference are public.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffpref.core.annotations import Number, PositiveInt
from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ModelError
from diffpref.core.files import sha256
from diffpref.rewards import registry
from diffpref.rewards._dual_encoder import Framing, cut, paired_cosine
from diffpref.rewards._hf_clip import encoder_of
from diffpref.rewards._layout import fill
from diffpref.rewards._media import as_pictures, check_lengths
from diffpref.rewards._mps_cross import CrossModel, condition_mask
from diffpref.rewards._pickles import read_tensors
from diffpref.rewards._published import Published
from diffpref.rewards._tokenizers import load_tokenizer, vocabulary_version
from diffpref.rewards._weights import PICKLED, UNREADABLE, Precision, content_version, first_line

if TYPE_CHECKING:
    from transformers import CLIPModel

__all__ = ["BACKBONE_ID", "CONDITIONS", "PUBLISHED", "MultiDimensionalScore", "load_mps"]

FILE = "MPS_overall_checkpoint"
PUBLISHED = Published(
    "mps",
    "RE-N-Y/mpsv1",  # others' copy of the weights that github.com/Kwai-Kolors/MPS links to
    ("*.safetensors",),
    "MIT of the code; none is stated for the weights",
)
PREFIX = "mps."
"""What the mirror writes before the names."""
BACKBONE_ID = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
CONDITIONS = {
    "overall": "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure,"
    " instance, texture, quantity, attributes, position, number, location, word, things.",
    "aesthetics": "light, color, clarity, tone, style, ambiance, artistry",
    "detail": "shape, face, hair, hands, limbs, structure, instance, texture",
    "alignment": "quantity, attributes, position, number, location",
}
"""What a dimension is about. The first is the official code's, the others are inferred: they are its parts."""
_SPARE = ("layers.*.1.fn.rotary_emb.inv_freq",)
_CONVERT = (
    "the published MPS_overall_checkpoint.pth is a pickled module, which opens only by running code; where you trust"
    f" it, save its state_dict() with safetensors in its authors' environment, as {FILE}.safetensors, names unchanged;"
    " or take the copy on the hub"
)


class MultiDimensionalScore:
    """Scores a picture by one condition.

    Args:
        info: what it says of itself.
        model: CLIP.
        cross: the blocks on it.
        tokenizer: CLIP's.
        processor: CLIP's, for pictures.
        condition: words.
        threshold: see `condition_mask`.
        micro_batch: pictures that run at once.
    """

    def __init__(
        self,
        info: RewardInfo,
        model: CLIPModel,
        cross: CrossModel,
        tokenizer: Any,
        processor: Any,
        *,
        condition: str,
        threshold: float,
        micro_batch: int = 16,
    ) -> None:
        self._info, self.model, self.cross, self.tokenizer = info, model, cross, tokenizer
        self.threshold, self.micro_batch = threshold, micro_batch
        encoder = encoder_of(model, tokenizer, processor)
        self._preprocess, self._scale = encoder.preprocess, encoder.logit_scale
        self.framing: Framing = encoder.framing
        with torch.no_grad():
            self._condition = self._tokens([condition])[0][0].float()

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    @torch.no_grad()
    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 on the CPU for N images and N prompts.

        Raises:
            ShapeError: not as many prompts as images.
            DataError: an item is not an image.
        """
        check_lengths(self._info.name, media, prompts, metadata)
        result = [torch.zeros(0)]
        for start in range(0, len(media), self.micro_batch):
            rows = slice(start, start + self.micro_batch)
            pictures = [cut(picture) for picture in as_pictures(self._info.name, media[rows], start)]
            result.append(self._scores(self._preprocess(pictures), prompts[rows]).cpu())
        return torch.cat(result)

    def score_tensors(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (N,) float32, differentiable in ``pixels`` (N, 3, H, W) in [0, 1].

        Raises:
            ShapeError: wrong shape, or not as many prompts as pictures.
        """
        check_lengths(self._info.name, pixels, prompts)
        framed = self.framing(pixels)
        starts = range(0, len(pixels), self.micro_batch)
        parts = [self._scores(framed[i : i + self.micro_batch], prompts[i : i + self.micro_batch]) for i in starts]
        return torch.cat(parts) if parts else pixels.new_zeros(0, dtype=torch.float32)

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return (N, T, D) projected tokens, and (N, D) the projected end of each text.

        Texts are padded to the model's length and the padding is seen, as in the official code.
        """
        length = self.model.text_model.embeddings.position_embedding.num_embeddings
        ids = self.tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        output = self.model.text_model(input_ids=ids.input_ids.to(self.model.device))
        project = self.model.text_projection
        return project(output.last_hidden_state), project(output.pooler_output)

    def _scores(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            text, end = self._tokens(list(prompts))
            _, kept = condition_mask(text.float(), self._condition, self.threshold)
        pixels = pixels.to(self.model.device, self.model.dtype)
        picture = self.model.visual_projection(self.model.vision_model(pixel_values=pixels).last_hidden_state)
        return self._scale * paired_cosine(self.cross(picture, text, kept)[:, 0], end)


def _clip_of(tensors: Mapping[str, Tensor], backbone: str, path: Path, precision: Precision) -> CLIPModel:
    from transformers import CLIPConfig, CLIPModel

    try:
        model, loaded = CLIPModel.from_pretrained(
            None,
            config=CLIPConfig.from_pretrained(backbone),
            state_dict={name: tensor for name, tensor in tensors.items() if not name.endswith("position_ids")},
            dtype=getattr(torch, precision),
            output_loading_info=True,
        )
    except UNREADABLE as error:
        raise ModelError(f"{path}: no CLIP model of the configuration of {backbone}: {first_line(error)}") from error
    for kind, names in (("lacks", loaded["missing_keys"]), ("has unknown", loaded["unexpected_keys"])):
        if names:
            raise ModelError(
                f"{path}: not the published layout: {kind} {len(names)} tensors, such as model.{min(names)}"
            )
    result: CLIPModel = model.eval().requires_grad_(False)
    return result


@registry.register("mps")
def load_mps(
    path: str | None = None,
    *,
    condition: str = "overall",
    threshold: Number = 0.3,
    backbone: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 16,
) -> Reward:
    """Load MPS; scores lie in -100..100 and are typically near 10. P(a better than b) is the sigmoid of the difference.

    Args:
        path: a safetensors file with the state dict of the published module, a folder with it (as
            ``MPS_overall_checkpoint.safetensors`` where there are several), or the mirror's hub id.
        condition: one of `CONDITIONS`, or words of your own.
        threshold: of `condition_mask`: 0.3 in the official evaluation scripts, 0.01 in the model's class.
        backbone: folder or hub id of CLIP's configuration, tokenizer and image processor; default: the folder where it
            has a ``config.json`` and a ``preprocessor_config.json``, else `BACKBONE_ID`.
        device: where it runs.
        precision: of the networks; the mask and the cosine are always computed in float32.
        micro_batch: pictures that run at once.

    Raises:
        ModelError: a file is missing, a pickle, or of another layout.
    """
    from transformers import CLIPImageProcessor

    given = Path(path).expanduser() if path is not None else None
    if given is not None and (given.suffix in PICKLED or _only_pickled(given)):
        raise ModelError(f"{path}: {_CONVERT}; reward 'mps' reads {PUBLISHED}")
    found = PUBLISHED.find(path)
    file = found if found.is_file() else _weights_in(found)
    if backbone is None:
        backbone = str(file.parent) if _settings_in(file.parent) else BACKBONE_ID
    tensors = read_tensors(file)
    if all(name.startswith(PREFIX) for name in tensors):
        tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "cross_model": {}}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        if head not in parts:
            raise ModelError(f"{file}: not the published layout: an unknown tensor {name}")
        parts[head][rest] = tensor
    try:
        cross = CrossModel.of(parts["cross_model"])
        processor = CLIPImageProcessor.from_pretrained(backbone)
    except KeyError as error:
        raise ModelError(f"{file}: not the published layout: lacks cross_model.{error.args[0]}") from error
    except UNREADABLE as error:
        raise ModelError(f"{backbone}: no image processor could be loaded: {first_line(error)}") from error
    fill(cross, parts["cross_model"], file, dtype=getattr(torch, precision), spare=_SPARE)
    model = _clip_of(parts["model"], backbone, file, precision)
    tokenizer = load_tokenizer(backbone, model.text_model.embeddings.token_embedding.num_embeddings)
    words = CONDITIONS.get(condition, condition)
    settings = "".join(sha256(file) for file in _settings_in(Path(backbone))) or backbone
    told = f"{words}|{vocabulary_version(tokenizer)}|{settings}"
    asked = hashlib.sha256(told.encode()).hexdigest()[:8]
    parts_of_version = [content_version(file), f"{asked}>{threshold:g}", precision]
    info = RewardInfo(
        name="mps",
        version="+".join(part for part in parts_of_version if part != "float32"),
        licence=PUBLISHED.licence,
        range=(-100.0, 100.0),
        pair_scale=1.0,
        differentiable=True,
        preprocessing="CLIP's",
    )
    return MultiDimensionalScore(
        info,
        model.to(device),
        cross.to(device),
        tokenizer,
        processor,
        condition=words,
        threshold=threshold,
        micro_batch=micro_batch,
    )


def _settings_in(folder: Path) -> list[Path]:
    """Return the files of CLIP's configuration and of its framing of pictures; none where one is missing."""
    files = [folder / name for name in ("config.json", "preprocessor_config.json")]
    return files if all(file.is_file() for file in files) else []


def _weights_in(folder: Path) -> Path:
    own = folder / f"{FILE}.safetensors"
    files = [own] if own.is_file() else sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise ModelError(f"{folder}: {len(files)} safetensors files, none of them {own.name}; name the file")
    return files[0]


def _only_pickled(folder: Path) -> bool:
    files = list(folder.glob(f"{FILE}.*")) if folder.is_dir() else []
    return bool(files) and all(file.suffix in PICKLED for file in files)
