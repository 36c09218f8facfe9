"""VQAScore: how probable "Yes" is when a model is asked whether a picture shows a text (Lin et al., ECCV 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import Media, Reward, RewardInfo, Tensors
from diffpref.core.errors import ConfigError, ModelError
from diffpref.rewards import registry
from diffpref.rewards._answers import answer_probability, geometric_mean_probability
from diffpref.rewards._asking import Template, read_template
from diffpref.rewards._clip_t5 import ClipT5, is_clip_t5, open_clip_t5, open_tower, square, tower_place
from diffpref.rewards._media import as_pictures, check_lengths
from diffpref.rewards._published import Published
from diffpref.rewards._vlm import Part, Question, VisionLanguage, grouped, open_vlm
from diffpref.rewards._weights import UNREADABLE, Precision, content_version, first_line

__all__ = ["PUBLISHED", "T5_TEMPLATE", "TEMPLATE", "Mode", "load_vqascore"]

PUBLISHED = Published(
    "vqascore",
    "zhiqiulin/clip-flant5-xxl",
    ("config.json", "*.safetensors|*.bin"),
    "Apache-2.0",
    also=("*.json", "*.jinja", "*.txt", "*.model"),
)
TOKENIZER_ID = "google/flan-t5-xxl"
Mode: TypeAlias = Literal["t5_geomean", "p_yes"]

_QUESTION = "Is '{prompt}' what the picture shows? Answer yes or no."
TEMPLATE = Template("{image}\n" + _QUESTION)
"""What a decoder is asked, in our words."""
T5_TEMPLATE = Template(
    f"A user shows pictures to an assistant, whose answers are short and true. USER: {{image}}\n{_QUESTION} ASSISTANT: "
)
"""What CLIP-FlanT5 is asked, in our words in the form on which it was trained."""


class VqaScore:
    """Scores a picture by how probable an answer is.

    Args:
        info: what it says of itself.
        template: of the question.
        probabilities: N questions, each of parts -> (N,) float32.
    """

    def __init__(
        self, info: RewardInfo, template: Template, probabilities: Callable[[list[tuple[Part, ...]]], Tensor]
    ) -> None:
        self._info, self.template, self._probabilities = info, template, probabilities

    @property
    def info(self) -> RewardInfo:
        """Name, version, licence, range."""
        return self._info

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 probabilities for N pictures and N prompts.

        Raises:
            ShapeError: not as many prompts as pictures.
            DataError: an item is no picture.
        """
        check_lengths(self._info.name, media, prompts)
        pictures = as_pictures(self._info.name, media)
        asked = [self.template.ask(prompt, picture).parts for prompt, picture in zip(prompts, pictures, strict=True)]
        return self._probabilities(asked) if asked else torch.zeros(0)


class T5Asker:
    """How CLIP-FlanT5 is asked.

    Args:
        model: the model.
        tokenizer: of T5; of the logits, those of its words count.
        processor: image processor of the tower.
        answer: whose probability is read.
        mode: ``"t5_geomean"`` or ``"p_yes"``.
        micro_batch: questions of equal length that run at once.
    """

    def __init__(
        self, model: ClipT5, tokenizer: Any, processor: Any, answer: str, mode: Mode, micro_batch: int = 8
    ) -> None:
        self.model, self.tokenizer, self.processor = model, tokenizer, processor
        self.mode, self.micro_batch = mode, micro_batch
        labels = tokenizer(answer).input_ids  # the end-of-text token is one of them
        self.labels = torch.tensor(labels if mode == "t5_geomean" else labels[:1])
        self.colour = tuple(int(255 * mean) for mean in processor.image_mean)

    @torch.no_grad()
    def __call__(self, asked: list[tuple[Part, ...]]) -> Tensor:
        """Return (N,) float32 probabilities of the answer; each question is text, picture, text."""
        return torch.stack(grouped((self._row(*parts) for parts in asked), self._run, self.micro_batch))

    def _row(self, before: Any, picture: Any, after: Any) -> dict[str, Tensor]:
        shown = self.processor(images=square(picture, self.colour), return_tensors="pt").pixel_values
        ids = {name: self.tokenizer(text).input_ids for name, text in (("before", before), ("after", after))}
        return {"pixels": shown, **{name: torch.tensor([tokens]) for name, tokens in ids.items()}}

    def _run(self, batch: Tensors) -> Tensor:
        device = next(self.model.parameters()).device
        placed = {name: tensor.to(device) for name, tensor in batch.items()}
        labels = self.labels.to(device).expand(len(placed["after"]), -1)
        logits = self.model.logits(**placed, labels=labels, unknown=self.tokenizer.unk_token_id)
        logits = logits[..., : len(self.tokenizer)]  # the rest fills a round number, and the authors cut it off
        read = geometric_mean_probability if self.mode == "t5_geomean" else answer_probability
        return read(logits, labels).cpu()


def _ask_vlm(vlm: VisionLanguage, answer: str) -> Callable[[list[tuple[Part, ...]]], Tensor]:
    tokens = vlm.tokens(answer)

    def probabilities(asked: list[tuple[Part, ...]]) -> Tensor:
        def read(logits: Tensor) -> Tensor:
            return answer_probability(logits, torch.tensor(tokens, device=logits.device).expand(len(logits), -1))

        return vlm.read([Question(parts) for parts in asked], read, tokens)

    return probabilities


def _t5_tokenizer(folder: Path, tokenizer: str | None) -> Any:
    from transformers import AutoTokenizer

    names = ("spiece.model", "tokenizer.json")
    if tokenizer is None and not any((folder / name).is_file() for name in names):
        raise ModelError(
            f"reward 'vqascore': {folder} has no tokenizer ({', '.join(names)}); give its place as the option"
            f" tokenizer, such as {TOKENIZER_ID}"
        )
    place = tokenizer or str(folder)
    try:
        # of a config that transformers does not know, the tokenizer's class must be told
        return AutoTokenizer.from_pretrained(place, tokenizer_type="t5", trust_remote_code=False)
    except (*UNREADABLE, ImportError) as error:
        raise ModelError(f"reward 'vqascore': {place} holds no tokenizer: {first_line(error)}") from error


@registry.register("vqascore")
def load_vqascore(
    path: str | None = None,
    *,
    mode: Mode | None = None,
    answer: str = "Yes",
    template: str | None = None,
    tokenizer: str | None = None,
    tower: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 8,
    allow_pickle: bool = False,
) -> Reward:
    """Load VQAScore: over CLIP-FlanT5, as published, or over any image-text-to-text model of transformers.

    Args:
        path: hub id or folder.
        mode: ``"t5_geomean"``: the geometric mean of the probabilities of the answer's tokens and of the end of text,
            as the authors' code has it, for CLIP-FlanT5 alone and its default; ``"p_yes"``: the probability of the
            answer itself, for decoders the product over its tokens, for CLIP-FlanT5 that of the first one.
        answer: what is to be probable; some models say "yes" in place of "Yes".
        template: text file with the question, ``{prompt}`` and ``{image}`` in it. The defaults are in our own words;
            give the authors' to compare with their numbers.
        tokenizer: CLIP-FlanT5's, where the folder has none: a folder, or a hub id such as ``google/flan-t5-xxl``.
        tower: CLIP-FlanT5's vision tower, where the folder has none (neither in its weights nor in ``vision_tower``):
            a folder, or the hub id ``openai/clip-vit-large-patch14-336``.
        device: where it runs.
        precision: of the network, bfloat16 in the authors' code; probabilities are computed in float32.
        micro_batch: questions of equal length that run at once.
        allow_pickle: accept weights that only a pickle holds; they are read with weights-only loading.

    Raises:
        ConfigError: no path, a template without its places, or a mode that the model does not have.
        ModelError: nothing that can be loaded safely lies there, or a part is missing.
    """
    owner = PUBLISHED.reward
    folder = PUBLISHED.find(path)
    t5 = is_clip_t5(folder)
    mode = mode or ("t5_geomean" if t5 else "p_yes")
    if mode == "t5_geomean" and not t5:
        raise ConfigError(f"reward '{owner}': mode t5_geomean is CLIP-FlanT5's; of the model of {path} take p_yes")
    words = read_template(owner, template, T5_TEMPLATE if t5 else TEMPLATE).check(owner, 1)
    version = [content_version(folder), mode, answer, words.digest]
    if t5:
        if words.text.startswith("{image}") or "{image}" not in words.text or words.text.endswith("{image}"):
            raise ConfigError(f"reward '{owner}': CLIP-FlanT5 reads words, {{image}}, then words again")
        place = tower_place(folder, tower)
        config, processor, weights = open_tower(folder, place, allow_pickle)
        model = open_clip_t5(folder, config, weights, getattr(torch, precision), allow_pickle).to(device)
        asker = T5Asker(model, _t5_tokenizer(folder, tokenizer), processor, answer, mode, micro_batch)
        probabilities: Callable[[list[tuple[Part, ...]]], Tensor] = asker
        for other in (tokenizer, place):
            if other is not None:
                version.append(content_version(Path(other)) if Path(other).is_dir() else other)
    else:
        if tokenizer is not None or tower is not None:
            raise ConfigError(f"reward '{owner}': tokenizer and tower are options of CLIP-FlanT5, and {path} is none")
        vlm = open_vlm(
            owner, folder, device=device, precision=precision, micro_batch=micro_batch, allow_pickle=allow_pickle
        )
        probabilities = _ask_vlm(vlm, answer)
    info = RewardInfo(
        name=owner,
        version="+".join([*version, *([precision] if precision != "float32" else [])]),
        licence=PUBLISHED.licence if t5 else "that of the model that is taken",
        range=(0.0, 1.0),
        preprocessing="square of the mean colour" if t5 else "",
    )
    return VqaScore(info, words, probabilities)
