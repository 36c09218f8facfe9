"""VideoReward of VideoAlign: Qwen2-VL-2B read at three tokens (Liu et al., arXiv 2501.13918).

``<|VQ_reward|>``, ``<|MQ_reward|>`` and ``<|TA_reward|>`` are added to the vocabulary. Each stands after what it is to
judge, and the prompt comes before the last alone: quality of picture and of motion do not depend on it, because what
comes later is not seen. One linear layer without bias reads all three: its output is one number (the published one, as
far as is known), or three of which each token has its own. The layout is that of the official loader: the newest folder
``checkpoint-*`` has ``model.pth``, a whole network with its LoRA not folded in and named as peft does; or has
``adapter_model.safetensors`` and ``non_lora_state_dict.pth`` over the weights of the base. No published tensor was at
hand when this was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Clip, Media, Reward, RewardInfo
from diffpref.core.errors import ModelError
from diffpref.rewards import registry
from diffpref.rewards._frames import at_rate, evenly
from diffpref.rewards._layout import fill
from diffpref.rewards._media import as_clips, check_lengths
from diffpref.rewards._pickles import read_tensors
from diffpref.rewards._published import Published
from diffpref.rewards._qwen2_vl import Lora, base_version, merged, open_body, plain, resized_clip, split_head
from diffpref.rewards._reward_tokens import Positions, RewardTokens, check_prompts
from diffpref.rewards._templates import Template, open_template
from diffpref.rewards._vlm import Question
from diffpref.rewards._weights import Precision, content_version

__all__ = ["Settings", "VideoReward", "load_videoreward"]

PUBLISHED = Published(
    "videoreward",
    "KwaiVGI/VideoReward",
    ("model_config.json", "checkpoint-*/*"),
    "Apache-2.0 by the card of the weights, MIT by the code",
)
BASE = "Qwen/Qwen2-VL-2B-Instruct"
DIMENSIONS = ("VQ", "MQ", "TA")
ASPECTS = ("visual_quality", "motion_quality", "text_alignment")
TOKENS = tuple(f"<|{dimension}_reward|>" for dimension in DIMENSIONS)
MIN_PIXELS = 128 * 28 * 28
WORDS = (
    "The video above was generated. Rate it three times, each time for one thing only.\n"
    "How good do its pictures look? Think of sharpness, detail, colours and composition, of bodies and things that"
    f" cannot be, and of what offends. Pictures: {TOKENS[0]}\n"
    "How good is its motion? Think of jumps and flickering, of how things move and deform in reality, of smoothness,"
    f" and of whether anything moves at all. Motion: {TOKENS[1]}\n"
    "How well does it show the prompt? Think of who and what is there, of what happens, of the place, the style and the"
    f" camera.\nPrompt: {{prompt}}\nPrompt shown: {TOKENS[2]}"
)


@dataclass(frozen=True)
class Settings:
    """What ``model_config.json`` says of how the model was trained.

    Args:
        fps: frames a second that it sees, where ``num_frames`` is None.
        num_frames: how many frames it sees of any video; None: ``fps``.
        max_pixels: of a frame.
        lora: how its LoRA is folded in; None: it has none.
        mean: of each dimension, by which scores are put on one scale; 0 where the file does not say.
        std: of each dimension; 1 where the file does not say.
    """

    fps: float
    num_frames: int | None
    max_pixels: int
    lora: Lora | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, file: Path) -> Settings:
        """Return what a file says.

        Raises:
            ModelError: no such file, or one of a model that is trained in another way.
        """
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            data, model, lora = (content[part] for part in ("data_config", "model_config", "peft_lora_config"))
            scale = content.get("inference_config") or {}
            found = cls(
                fps=float(data.get("fps") or 2.0),
                num_frames=int(data["num_frames"]) if data.get("num_frames") else None,
                max_pixels=int(data.get("max_frame_pixels", 240 * 320)),
                lora=Lora(int(lora["lora_r"]), float(lora["lora_alpha"]), bool(lora.get("use_rslora")))
                if lora.get("lora_enable")
                else None,
                mean=tuple(float(scale[f"{dimension}_mean"]) if scale else 0.0 for dimension in DIMENSIONS),
                std=tuple(float(scale[f"{dimension}_std"]) if scale else 1.0 for dimension in DIMENSIONS),
            )
            tokens, sampling = model.get("use_special_tokens"), data.get("sample_type", "uniform")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{file}: not the config of a VideoReward: {type(error).__name__} {error}") from error
        if not tokens or sampling != "uniform":
            raise ModelError(
                f"{file}: expected use_special_tokens true and sample_type 'uniform', got {tokens} and '{sampling}'"
            )
        if min(found.std) <= 0 or found.fps <= 0:
            raise ModelError(f"{file}: fps and every std must be > 0, got {found.fps} and {found.std}")
        return found


class VideoReward:
    """Scores videos by picture, by motion and by prompt.

    Args:
        info: what it says of itself.
        heads: the model, read at three tokens.
        template: the words around the prompt.
        settings: how the model was trained.
    """

    def __init__(self, info: RewardInfo, heads: RewardTokens, template: Template, settings: Settings) -> None:
        self._info, self.heads, self.template, self.settings = info, heads, template, settings

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range, aspects."""
        return self._info

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32: the sum of the three aspects, each on the scale of its mean and deviation.

        Raises:
            ShapeError: not as many prompts as videos.
            DataError: an item is no video, its fps is not known (`Clip`), or it is too short; a prompt with a token of
                the model's own.
        """
        check_lengths("videoreward", media, prompts, metadata)
        return self._rated(media, prompts).sum(dim=1)

    def score_aspects(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        """Return (N,) float32 for each aspect; raises as `score` does."""
        check_lengths("videoreward", media, prompts, metadata)
        return dict(zip(ASPECTS, self._rated(media, prompts).unbind(dim=1), strict=True))

    def _rated(self, media: Sequence[Media], prompts: Sequence[str]) -> Tensor:
        clips = as_clips("videoreward", media)
        if not clips:
            return torch.zeros(0, len(ASPECTS))
        check_prompts(self.heads.model, prompts)
        places = [self._places(number, clip) for number, clip in enumerate(clips)]
        questions = (
            Question((self._seen(number, clip, places[number]), self.template.filled(prompt)))
            for number, (clip, prompt) in enumerate(zip(clips, prompts, strict=True))
        )
        said = self.heads.read(questions)  # (N, 3, 1 or 3)
        rated = said.squeeze(-1) if said.shape[-1] == 1 else said.diagonal(dim1=1, dim2=2)
        return (rated - torch.tensor(self.settings.mean)) / torch.tensor(self.settings.std)

    def _places(self, number: int, clip: Clip) -> list[int]:
        if self.settings.num_frames is None:
            return at_rate("videoreward", number, clip, self.settings.fps)
        return evenly("videoreward", number, clip, self.settings.num_frames)

    def _seen(self, number: int, clip: Clip, places: list[int]) -> Clip:
        frames = resized_clip("videoreward", number, clip.frames[places], MIN_PIXELS, self.settings.max_pixels)
        return Clip(frames, clip.fps)


def _newest(folder: Path) -> Path:
    """Return the checkpoint of the most steps."""
    steps = {
        int(found[1]): path for path in folder.iterdir() if (found := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    if not steps:
        raise ModelError(f"{folder}: no folder checkpoint-<step>; reward 'videoreward' reads {PUBLISHED}")
    return steps[max(steps)]


def _tensors(checkpoint: Path, base: str, allow_pickle: bool) -> tuple[dict[str, Tensor], list[Path]]:
    """Return the tensors of a whole network, its head and its LoRA, by the names of `plain`, and the files they are in.

    Raises:
        ModelError: neither a whole network nor an adapter, or a pickle without leave.
    """

    def existing(*names: str) -> Path | None:
        return next((checkpoint / name for name in names if (checkpoint / name).is_file()), None)

    if (whole := existing("model.safetensors", "model.pth")) is not None:
        return plain(read_tensors(whole, allow_pickle=allow_pickle)), [whole]
    lora, rest = (
        existing("adapter_model.safetensors"),
        existing("non_lora_state_dict.safetensors", "non_lora_state_dict.pth"),
    )
    if lora is None or rest is None:
        raise ModelError(
            f"{checkpoint}: no model.pth, nor adapter_model.safetensors and non_lora_state_dict.pth; reward"
            f" 'videoreward' reads {PUBLISHED}"
        )
    weights = Published("videoreward", BASE, ("*.safetensors",), "Apache-2.0").find(base)
    shards = [weights] if weights.is_file() else sorted(weights.glob("*.safetensors"))
    tensors: dict[str, Tensor] = {}
    for file in (*shards, rest, lora):  # the later one holds what training changed
        tensors |= plain(read_tensors(file, allow_pickle=allow_pickle))
    return tensors, [rest, lora]


@registry.register("videoreward")
def load_videoreward(
    path: str | None = None,
    *,
    base: str | None = None,
    template: str | None = None,
    positions: Positions = "sequential",
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 1,
    allow_pickle: bool = False,
) -> Reward:
    """Load VideoReward.

    Args:
        path: hub id, or folder with ``model_config.json`` and ``checkpoint-<step>``.
        base: folder or hub id of Qwen2-VL-2B-Instruct: config, tokenizer and processor; of a checkpoint that is an
            adapter, the weights too. Default: ``path`` where it has a ``config.json``, else the hub's.
        template: text file with the words to ask in: the three tokens in their order, ``{prompt}`` before the last.
            The official words, which the published numbers need, are in the authors' repository; ours are used
            otherwise, and the version says so.
        positions: see `RewardTokens`; ``"mrope"`` for models that were trained so.
        device: where it runs.
        precision: of the network; the head is always float32. The LoRA is folded in before the weights are rounded,
            where the official code rounds both and adds.
        micro_batch: videos of equal shape, with prompts of equal length, that run at once.
        allow_pickle: accept weights that only a pickle holds, as the published ones are.

    Raises:
        ConfigError: no path, or a template without its marks.
        ModelError: files are missing, or not of the published layout.
    """
    words = open_template("videoreward", template, WORDS, [*TOKENS[:2], "{prompt}", TOKENS[2]])
    folder = PUBLISHED.find(path)
    settings, checkpoint = Settings.read(folder / "model_config.json"), _newest(folder)
    base = base or (str(folder) if (folder / "config.json").is_file() else BASE)
    tensors, files = _tensors(checkpoint, base, allow_pickle)
    if settings.lora is not None:
        tensors = merged(tensors, checkpoint, settings.lora)
    body, head = split_head(tensors)
    model = open_body(
        "videoreward",
        base,
        body,
        checkpoint,
        tokens=TOKENS,
        device=device,
        precision=precision,
        micro_batch=micro_batch,
        processing={"do_resize": False, "cap_pixels_per_frame": False},
    )
    linear = _head(head, model.network.config.text_config.hidden_size, checkpoint).to(device)
    contents = [content_version(file) for file in (*files, folder / "model_config.json")]
    suffixes = [base_version(model.processor), words.label, *([positions] if positions != "sequential" else [])]
    suffixes += [precision] if precision != "float32" else []
    info = RewardInfo(
        name="videoreward",
        version="+".join([*contents, *suffixes]),
        licence=PUBLISHED.licence,
        range=(-9.0, 9.0),
        media="video",
        preprocessing=f"{settings.num_frames or f'{settings.fps:g}fps'}-{MIN_PIXELS}..{settings.max_pixels}",
        aspects=ASPECTS,
    )
    return VideoReward(info, RewardTokens(model, linear, TOKENS, positions), words, settings)


def _head(tensors: Mapping[str, Tensor], width: int, path: Path) -> nn.Linear:
    given = tensors.get("weight")
    outputs = 1 if given is None or len(given) == 1 else len(DIMENSIONS)
    with torch.device("meta"):
        linear = nn.Linear(width, outputs, bias=False)
    fill(linear, tensors, path, dtype=torch.float32)
    return linear
