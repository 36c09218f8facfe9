"""CLIP-FlanT5: a FLAN-T5 that reads a picture's patches in place of a token. transformers has no such class.

Read in the authors' code (linzhiqiu/t2v_metrics before its release 3.1): ``config.json`` is T5's with the model type
``clip_t5`` and ``mm_*`` fields; the weights have T5's names, ``mm_projector.*`` and, where the tower was saved too,
``vision_tower.vision_tower.vision_model.*``; the tower is OpenAI's ViT-L/14 at 336 pixels, of which the last layer but
one is read, without its class token; the texts before and after the picture are tokenised apart, each ends with an
end-of-text token. Inferred, for the published files themselves were not seen: whether they hold the tower, a tokenizer
and an image processor. Each is read from the folder where it is there, else from a place that is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from diffpref.core.errors import ModelError
from diffpref.rewards._pickles import read_tensors
from diffpref.rewards._weights import PICKLED, UNREADABLE, first_line, refuse_pickle

__all__ = ["TOWER_ID", "ClipT5", "is_clip_t5", "open_clip_t5", "open_tower", "square", "tower_place"]

TOWER_ID = "openai/clip-vit-large-patch14-336"
"""Its shape is assumed where no config of a tower is at hand."""
_VIT_L_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
_TOWER = re.compile(r"^vision_tower\.(?:vision_tower\.)?(?:vision_model\.)?")


def is_clip_t5(folder: Path) -> bool:
    """Return whether a folder's config says that it is a CLIP-T5."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder}: no readable config.json: {first_line(error)}") from error
    return bool(kind == "clip_t5")


def square(picture: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """Return a picture in the middle of a square of its longer side, the rest of one colour."""
    side = max(picture.size)
    if picture.width == picture.height:
        return picture
    wide = Image.new(picture.mode, (side, side), colour)
    wide.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return wide


class ClipT5(nn.Module):
    """The model: a tower's patches, projected, stand between two texts in the encoder's input.

    Args:
        language: T5.
        tower: CLIP's vision model.
        projector: from the tower's width to T5's.
        scale: factor before the head: 1 where it has weights of its own, as FLAN-T5's; D^-0.5 where it shares the
            embedding's (T5 1.0).
        start: token with which the decoder begins.
        layer: index of the tower's hidden states that are read; -2 is the last layer but one.
        patches: leave the class token out.
    """

    def __init__(
        self,
        language: Any,
        tower: Any,
        projector: nn.Module,
        *,
        scale: float = 1.0,
        start: int = 0,
        layer: int = -2,
        patches: bool = True,
    ) -> None:
        super().__init__()
        self.language, self.tower, self.projector = language, tower, projector
        self.scale, self.start, self.layer, self.patches = scale, start, layer, patches

    def see(self, pixels: Tensor) -> Tensor:
        """Return (N, P, D) what T5 reads of (N, 3, S, S) normalised pixels."""
        hidden = self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states[self.layer]
        seen: Tensor = self.projector(hidden[:, 1:] if self.patches else hidden)
        return seen

    def logits(self, before: Tensor, pixels: Tensor, after: Tensor, labels: Tensor, unknown: int | None) -> Tensor:
        """Return (N, L, V) float32 logits at the places of an answer.

        Args:
            before: (N, T1) tokens before the picture.
            pixels: (N, 3, S, S) normalised.
            after: (N, T2) tokens after it.
            labels: (N, L) tokens of the answer, the end-of-text token among them.
            unknown: token that T5 is not shown: the authors fill with it, so that their mask hides it everywhere.
        """
        embed, t5 = self.language.get_input_embeddings(), self.language
        dtype = embed.weight.dtype
        parts = [embed(before), self.see(pixels.to(dtype)).to(dtype), embed(after)]
        inputs = torch.cat(parts, dim=1)
        mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        if unknown is not None:
            mask[:, -after.shape[1] :] = (after != unknown).long()
        hidden = t5.encoder(inputs_embeds=inputs, attention_mask=mask).last_hidden_state
        start = torch.full_like(labels[:, :1], self.start)
        said = t5.decoder(
            input_ids=torch.cat([start, labels[:, :-1]], dim=1),
            encoder_hidden_states=hidden,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        return functional.linear(self.scale * said.float(), t5.lm_head.weight.float())


# ------------------------------------------------------------ reading it


def tower_place(folder: Path, tower: str | None) -> str | None:
    """Return where the tower lies apart: where it is said to, or ``vision_tower`` below the model's folder."""
    return tower or (str(folder / "vision_tower") if (folder / "vision_tower").is_dir() else None)


def open_tower(folder: Path, place: str | None, allow_pickle: bool) -> tuple[Any, Any, dict[str, Tensor]]:
    """Return the tower's config, its image processor and its weights.

    Args:
        folder: of the model.
        place: folder or hub id of a CLIP model or its vision half; None: the shape of `TOWER_ID`, without weights.
        allow_pickle: accept weights that only a pickle holds.

    Raises:
        ModelError: there is no such tower.
    """
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    try:
        if place is None:
            config, weights = CLIPVisionConfig(**_VIT_L_336, hidden_act="quick_gelu"), {}
        else:
            if Path(place).is_dir():
                refuse_pickle(Path(place), allow_pickle)
            model, loaded = CLIPVisionModel.from_pretrained(
                place, use_safetensors=None if allow_pickle else True, output_loading_info=True
            )
            if missing := sorted(loaded["missing_keys"]):
                raise ModelError(f"{place} lacks {len(missing)} weights of a CLIP tower, such as {missing[0]}")
            config, weights = model.config, model.state_dict()
        source = next((p for p in (place, str(folder)) if p and _has_processor(p)), None)
        if source is None:
            size = config.image_size
            processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
        else:
            processor = CLIPImageProcessor.from_pretrained(source)
    except (*UNREADABLE, ImportError) as error:
        raise ModelError(f"{place}: no CLIP tower that can be loaded safely: {first_line(error)}") from error
    return config, processor, weights


def _has_processor(place: str) -> bool:
    folder = Path(place)
    names = ("preprocessor_config.json", "processor_config.json")
    return not folder.exists() or any((folder / name).is_file() for name in names)


def open_clip_t5(
    folder: Path, tower_config: Any, tower_weights: Mapping[str, Tensor], dtype: torch.dtype, allow_pickle: bool
) -> ClipT5:
    """Read a checkpoint strictly: every weight is there once, and nothing else.

    Args:
        folder: with ``config.json`` and weights, in one file or in parts.
        tower_config: of the vision tower.
        tower_weights: its weights, for checkpoints that do not hold them.
        dtype: of the model; where float16, the layers that overflow in it stay float32, as in transformers.
        allow_pickle: accept weights that only a pickle holds.

    Raises:
        ModelError: not such a checkpoint; the message names a weight that is missing, unknown or of another shape.
    """
    from transformers import CLIPVisionModel, T5Config, T5ForConditionalGeneration

    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        told.pop("model_type", None)
        config = T5Config.from_dict(told)
        with torch.device("meta"):
            language = T5ForConditionalGeneration(config)
            kind = told.get("mm_projector_type", "mlp2x_gelu")
            projector = _projector(kind, tower_config.hidden_size, config.d_model)
            tower = CLIPVisionModel(tower_config)
    except UNREADABLE as error:
        raise ModelError(f"{folder}: no config of a CLIP-T5: {first_line(error)}") from error
    for module in tower.modules():
        if hasattr(module, "position_ids"):  # not in checkpoints, and on the meta device it holds nothing
            module.position_ids = torch.arange(module.position_ids.shape[-1])[None]
    tied = told.get("tie_word_embeddings", True) is not False  # versions of T5Config keep it under different names
    model = ClipT5(
        language,
        tower,
        projector,
        scale=config.d_model**-0.5 if tied else 1.0,
        start=int(told.get("decoder_start_token_id", 0)),
        layer=int(told.get("mm_vision_select_layer", -2)),
        patches=told.get("mm_vision_select_feature", "patch") == "patch",
    )
    below = "vision_model." if any(name.startswith("vision_model.") for name in tower.state_dict()) else ""
    state = {f"tower.{name}": tensor for name, tensor in tower_weights.items()}
    state |= _weights(folder, f"tower.{below}", allow_pickle)
    state = {name: _cast(name, tensor, dtype) for name, tensor in _whole(state, tied).items()}
    _check(folder, model, state)
    model.load_state_dict(state, strict=False, assign=True)  # what is not in it is the buffer above
    return model.eval().requires_grad_(False)


def _projector(kind: str, width: int, out: int) -> nn.Module:
    """Return LLaVA's projector: ``linear``, or ``mlp2x_gelu`` of two layers."""
    if kind == "linear":
        return nn.Linear(width, out)
    found = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if found is None:
        raise ValueError(f"mm_projector_type {kind!r} is neither linear nor mlpNx_gelu")
    layers: list[nn.Module] = [nn.Linear(width, out)]
    for _ in range(1, int(found[1])):
        layers += [nn.GELU(), nn.Linear(out, out)]
    return nn.Sequential(*layers)


def _weights(folder: Path, tower: str, allow_pickle: bool) -> dict[str, Tensor]:
    """Return the checkpoint's tensors by the names of `ClipT5`, whose tower's begin as told."""
    files = sorted(folder.glob("*.safetensors")) or sorted(p for p in folder.iterdir() if p.suffix in PICKLED)
    if not files:
        raise ModelError(f"{folder} holds no weights: expected .safetensors or pytorch_model*.bin files")
    state: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in read_tensors(file, allow_pickle=allow_pickle).items():
            if name.endswith("position_ids"):
                continue  # numbers from 0 on, which older versions of transformers saved
            if (bare := _TOWER.sub("", name)) != name:
                state[tower + bare] = tensor
            elif name.startswith("mm_projector."):
                state[name.removeprefix("mm_")] = tensor
            else:
                state[f"language.{name}"] = tensor
    return state


def _whole(state: dict[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """Return the state with every name of T5's one embedding, of which files hold one or several."""
    names = [f"language.{part}embed_tokens.weight" for part in ("encoder.", "decoder.", "")]
    shared = next((state[name] for name in ("language.shared.weight", *names) if name in state), None)
    if shared is not None:
        state |= dict.fromkeys(("language.shared.weight", *names[:2]), shared)
        if tied:
            state.setdefault("language.lm_head.weight", shared)
    state.pop(names[2], None)  # the authors' class has it under a second name
    return state


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(torch.float32 if dtype == torch.float16 and ".wo." in name else dtype)


def _check(folder: Path, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)}
    missing, unknown = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    if missing:
        hint = f"; give its place as the option tower, such as {TOWER_ID}" if missing[0].startswith("tower.") else ""
        raise ModelError(f"{folder} lacks {len(missing)} weights of a CLIP-T5, such as {missing[0]}{hint}")
    if unknown:
        raise ModelError(f"{folder} holds {len(unknown)} weights that are not a CLIP-T5's, such as {unknown[0]}")
    for name, shape in wanted.items():
        if tuple(state[name].shape) != shape:
            raise ModelError(f"{folder}: {name} is {tuple(state[name].shape)}, its config asks for {shape}")
