"""VideoScore: an Idefics2 that regresses five scores of a video (He et al., EMNLP 2024, arXiv 2406.15252).

Frames are pictures after the words; one linear layer reads the hidden state of the last token. The layout is that of
Mantis' ``Idefics2ForSequenceClassification`` as transformers saves it: the tensors of ``Idefics2Model`` under
``model.``, and ``score.weight`` and ``score.bias``. No published tensor was at hand when this was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Clip, Media, Reward, RewardInfo, Tensors
from diffpref.core.errors import ConfigError, ModelError
from diffpref.rewards import registry
from diffpref.rewards._frames import at_most
from diffpref.rewards._layout import fill
from diffpref.rewards._media import as_clips, check_lengths
from diffpref.rewards._pickles import read_tensors
from diffpref.rewards._published import Published
from diffpref.rewards._reward_tokens import check_prompts
from diffpref.rewards._templates import Template, open_template
from diffpref.rewards._vlm import Part, Question, VisionLanguage, grouped, open_processor
from diffpref.rewards._weights import UNREADABLE, Precision, check_vocabulary, content_version, first_line

__all__ = ["VideoScore", "load_videoscore"]

Version: TypeAlias = Literal["v1", "v1.1"]
FRAMES: dict[Version, int] = {"v1": 16, "v1.1": 48}
REPOSITORIES: dict[Version, str] = {"v1": "TIGER-Lab/VideoScore", "v1.1": "TIGER-Lab/VideoScore-v1.1"}
FILES = ("config.json", "*.safetensors", "preprocessor_config.json|processor_config.json", "tokenizer*")
LICENCES: dict[Version, str] = {"v1": "Apache-2.0", "v1.1": "MIT"}


def _published(version: Version) -> Published:
    return Published("videoscore", REPOSITORIES[version], FILES, LICENCES[version], also=("*.json",))


PUBLISHED = _published("v1.1")
ASPECTS = ("visual_quality", "temporal_consistency", "dynamic_degree", "text_alignment", "factual_consistency")
HEAD = "score."
# buffers that older versions of transformers stored
BUFFERS = ("*.position_ids", "*.rotary_emb.inv_freq")
WORDS = (
    "Below are frames of a generated video in their order. Rate the video in five ways, each from 1.0 (bad) to 4.0"
    " (like a real recording):\n"
    "1. visual quality: sharpness, resolution, light and colour\n"
    "2. temporal consistency: things and people stay the same, motion is smooth\n"
    "3. dynamic degree: how much happens\n"
    "4. alignment: it shows what the prompt asks for\n"
    "5. factual consistency: it agrees with what we know of the world\n"
    "Prompt: {prompt}\n"
    "Frames:\n"
)


class VideoScore:
    """Scores videos in five ways.

    Args:
        info: what it says of itself.
        model: its network ends in hidden states.
        head: (..., D) hidden states -> (..., 5); kept and run in float32.
        template: the words around the prompt.
        frames: how many it sees at most.
    """

    def __init__(
        self, info: RewardInfo, model: VisionLanguage, head: nn.Module, template: Template, frames: int
    ) -> None:
        self._info, self.model, self.head, self.template, self.frames = info, model, head, template, frames

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range, aspects."""
        return self._info

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32: the mean of the five aspects of N videos with N prompts.

        Raises:
            ShapeError: not as many prompts as videos.
            DataError: an item is no video; a prompt with a token of the model's own, or one that is too long.
        """
        check_lengths("videoscore", media, prompts, metadata)
        return self._rated(media, prompts).mean(dim=1)

    def score_aspects(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        """Return (N,) float32 for each aspect; raises as `score` does."""
        check_lengths("videoscore", media, prompts, metadata)
        return dict(zip(ASPECTS, self._rated(media, prompts).unbind(dim=1), strict=True))

    @torch.no_grad()
    def _rated(self, media: Sequence[Media], prompts: Sequence[str]) -> Tensor:
        clips = as_clips("videoscore", media)
        if not clips:
            return torch.zeros(0, len(ASPECTS))
        check_prompts(self.model, prompts)
        questions = (self._asked(clip, prompt) for clip, prompt in zip(clips, prompts, strict=True))

        def run(batch: Tensors) -> Tensor:
            hidden = self.model.network(**self.model.placed(batch), use_cache=False).last_hidden_state
            rated: Tensor = self.head(hidden[:, -1].float())
            return rated.cpu()

        return torch.stack(grouped(self.model.rows(questions), run, self.model.micro_batch))

    def _asked(self, clip: Clip, prompt: str) -> Question:
        parts: list[Part] = [self.template.filled(prompt)]
        for place in at_most(len(clip.frames), self.frames):
            parts += [Image.fromarray(clip.frames[place]), " "]
        return Question(tuple(parts))


@registry.register("videoscore")
def load_videoscore(
    path: str | None = None,
    *,
    version: Version = "v1.1",
    frames: PositiveInt | None = None,
    template: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 1,
) -> Reward:
    """Load VideoScore.

    Args:
        path: hub id (``TIGER-Lab/VideoScore``, ``TIGER-Lab/VideoScore-v1.1``) or folder.
        version: which of the two it is: v1 sees 16 frames, v1.1 sees 48.
        frames: how many it sees at most, in place of what the version says.
        template: text file with the words to ask in and ``{prompt}``; the frames follow. The official words, which the
            published numbers need, are in the authors' repository; ours are used otherwise, and the version says so.
        device: where it runs.
        precision: of the network; the head is always float32. Published: bfloat16.
        micro_batch: videos of equal shape, with prompts of equal length, that run at once.

    Raises:
        ConfigError: no path, or a template without ``{prompt}`` or with places for pictures.
        ModelError: files are missing, or not of the published layout.
    """
    words = open_template("videoscore", template, WORDS)
    published = _published(version)
    folder = published.find(path)
    processor = open_processor("videoscore", folder)
    if processor.image_token in words.text:
        raise ConfigError(f"reward 'videoscore': the template holds {processor.image_token}; frames come after it")
    processor.chat_template = None  # it was trained on plain text
    model, head = _open(folder, processor, device, precision, micro_batch)
    count = frames or FRAMES[version]
    suffixes = [f"{count}-frames", words.label, *([precision] if precision != "float32" else [])]
    info = RewardInfo(
        name="videoscore",
        version="+".join([content_version(folder), *suffixes]),
        licence=published.licence,
        range=(1.0, 4.0),
        media="video",
        preprocessing=f"at-most-{count}",
        aspects=ASPECTS,
    )
    return VideoScore(info, model, head, words, count)


def _open(
    folder: Path, processor: Any, device: str, precision: Precision, micro_batch: int
) -> tuple[VisionLanguage, nn.Module]:
    from accelerate import init_empty_weights
    from transformers import Idefics2Config, Idefics2Model

    try:
        config = Idefics2Config.from_pretrained(folder)
    except UNREADABLE as error:
        raise ModelError(f"reward 'videoscore': {folder} holds no config of Idefics2: {first_line(error)}") from error
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= read_tensors(file)
    check_vocabulary(folder, len(processor.tokenizer), config.text_config.vocab_size)
    with init_empty_weights(include_buffers=False):
        network, head = Idefics2Model(config), nn.Linear(config.text_config.hidden_size, len(ASPECTS))
    body = {name.removeprefix("model."): t for name, t in tensors.items() if not name.startswith(HEAD)}
    fill(network, body, folder, dtype=getattr(torch, precision), spare=BUFFERS)
    read = {name.removeprefix(HEAD): t for name, t in tensors.items() if name.startswith(HEAD)}
    fill(head, read, folder, dtype=torch.float32)
    return VisionLanguage("videoscore", network.to(device), processor, micro_batch), head.to(device)
