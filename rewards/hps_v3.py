"""HPSv3: Qwen2-VL-7B and a head that gives a mean and a deviation (Ma et al., ICCV 2025, arXiv 2508.03789).

One token, ``<|Reward|>``, is added to the vocabulary; a small network reads the hidden state there and gives mu and
log sigma. The score is mu. The published file has the whole Qwen2-VL beside the head, whose tensors are
``rm_head.{0,3,5}.{weight,bias}`` by the official code (a sequence with ReLU at 1 and 4, dropout at 2); the network's
names may be those of transformers before or after 4.52. No published tensor was at hand when this was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ShapeError
from diffpref.objectives.pair_probability import gaussian_preference
from diffpref.rewards import registry
from diffpref.rewards._layout import fill
from diffpref.rewards._media import as_pictures, check_lengths
from diffpref.rewards._pickles import read_tensors
from diffpref.rewards._published import Published
from diffpref.rewards._qwen2_vl import base_version, open_body, plain, resized_picture, split_head
from diffpref.rewards._reward_tokens import Positions, RewardTokens, check_prompts
from diffpref.rewards._templates import Template, open_template
from diffpref.rewards._vlm import Question
from diffpref.rewards._weights import Precision, content_version

__all__ = ["HPSv3", "load_hps_v3"]

PUBLISHED = Published("hps_v3", "MizzenAI/HPSv3", ("HPSv3.safetensors",), "MIT")
BASE = "Qwen/Qwen2-VL-7B-Instruct"
TOKEN = "<|Reward|>"
PIXELS = 256 * 28 * 28
HIDDEN = (1024, 16)
WORDS = (
    "The picture above was made from a prompt. Say how much people will like it.\n"
    "Look at the picture itself: are bodies, objects and places possible; is it sharp; is there detail in surfaces and"
    " light; are colours and composition pleasing; is it free of what offends?\n"
    "Then compare it with the prompt: are the subjects there, with the attributes, the surroundings and the style that"
    " were asked for, and is the meaning kept?\n"
    "Prompt: {prompt}\n"
    f"One rating for everything: {TOKEN}"
)


class HPSv3:
    """Scores pictures by mu, and knows how sure it is.

    Args:
        info: what it says of itself.
        heads: the model; its head gives mu and log sigma at one token.
        template: the words around the prompt.
    """

    def __init__(self, info: RewardInfo, heads: RewardTokens, template: Template) -> None:
        self._info, self.heads, self.template = info, heads, template

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 mu for N images and N prompts.

        Raises:
            ShapeError: not as many prompts as images.
            DataError: an item is no image, or one that is 200 times as long as wide; a prompt with a token of the
                model's own.
        """
        check_lengths("hps_v3", media, prompts, metadata)
        return self.moments(media, prompts)[0]

    def moments(self, media: Sequence[Media], prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return (N,) mu and (N,) log sigma, float32; raises as `score` does."""
        check_lengths("hps_v3", media, prompts)
        if not len(media):
            return torch.zeros(0), torch.zeros(0)
        check_prompts(self.heads.model, prompts)
        said = self.heads.read(self._questions(media, prompts))
        return said[:, 0, 0], said[:, 0, 1]

    def _questions(self, media: Sequence[Media], prompts: Sequence[str]) -> Iterator[Question]:
        for number, (item, prompt) in enumerate(zip(media, prompts, strict=True)):
            [picture] = as_pictures("hps_v3", [item], number)
            yield Question((resized_picture("hps_v3", number, picture, PIXELS), self.template.filled(prompt)))

    def compare(self, first: Sequence[Media], second: Sequence[Media], prompts: Sequence[str]) -> Tensor:
        """Return (N,) P(first is better than second), in which both deviations count: see `gaussian_preference`.

        Raises:
            ShapeError: not as many of the first as of the second, or of the prompts.
            DataError: as `score`.
        """
        if len(first) != len(second):
            raise ShapeError(f"reward 'hps_v3': {len(first)} first items but {len(second)} second ones")
        return gaussian_preference(*self.moments(first, prompts), *self.moments(second, prompts))


@registry.register("hps_v3")
def load_hps_v3(
    path: str | None = None,
    *,
    base: str | None = None,
    template: str | None = None,
    positions: Positions = "sequential",
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 4,
) -> Reward:
    """Load HPSv3.

    Args:
        path: hub id, folder, or the file ``HPSv3.safetensors``.
        base: folder or hub id of Qwen2-VL-7B-Instruct, of which config, tokenizer and processor are read, no weights;
            default: ``path`` where it has a ``config.json``, else the hub's.
        template: text file with the words to ask in, ``{prompt}`` and ``<|Reward|>``. The official words, which the
            published numbers need, are in the package ``hpsv3``; ours are used otherwise, and the version says so.
        positions: see `RewardTokens`; ``"mrope"`` for models that were trained so.
        device: where it runs.
        precision: of the network; the head is always float32. Published: bfloat16.
        micro_batch: images of equal shape, with prompts of equal length, that run at once.

    Raises:
        ConfigError: no path, or a template without its marks.
        ModelError: files are missing, or not of the published layout.
    """
    words = open_template("hps_v3", template, WORDS, ["{prompt}", TOKEN])
    found = PUBLISHED.find(path)
    file = found if found.is_file() else found / PUBLISHED.files[0]
    own = file.parent if (file.parent / "config.json").is_file() else BASE
    body, head = split_head(plain(read_tensors(file)))
    model = open_body(
        "hps_v3",
        str(base or own),
        body,
        file,
        tokens=(TOKEN,),
        device=device,
        precision=precision,
        micro_batch=micro_batch,
        processing={"do_resize": False},
    )
    width = model.network.config.text_config.hidden_size
    suffixes = [base_version(model.processor), words.label, *([positions] if positions != "sequential" else [])]
    suffixes += [precision] if precision != "float32" else []
    info = RewardInfo(
        name="hps_v3",
        version="+".join([content_version(file), *suffixes]),
        licence=PUBLISHED.licence,
        range=(-15.0, 15.0),
        preprocessing=f"area-{PIXELS}",
    )
    ranknet = _ranknet(width)
    fill(ranknet, head, file, dtype=torch.float32)
    return HPSv3(info, RewardTokens(model, ranknet.to(device), (TOKEN,), positions), words)


def _ranknet(width: int) -> nn.Sequential:
    wide, narrow = HIDDEN
    with torch.device("meta"):
        layers = [nn.Linear(width, wide), nn.ReLU(), nn.Dropout(0.05), nn.Linear(wide, narrow), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(narrow, 2))
