"""Any vision-language model as a judge: a score of one picture, the better one of two, also of clips, a checklist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

from diffpref.core.annotations import Number, Positive, PositiveInt
from diffpref.core.contracts import RewardInfo
from diffpref.core.errors import ConfigError
from diffpref.rewards import registry
from diffpref.rewards._asking import Ask, Say, Template, in_probabilities, in_words, read_template
from diffpref.rewards._checklist import Checklist, ChecklistJudge
from diffpref.rewards._judging import ClipJudge, PairJudge, PointJudge
from diffpref.rewards._published import Published
from diffpref.rewards._verdicts import Phrases, pair_verdict, point_score, yes_or_no
from diffpref.rewards._vlm import Question, VisionLanguage, open_vlm
from diffpref.rewards._weights import Precision, content_version

__all__ = [
    "PUBLISHED",
    "Checklist",
    "ChecklistJudge",
    "ClipJudge",
    "Mode",
    "PairJudge",
    "PointJudge",
    "Question",
    "Reading",
    "Template",
    "default_template",
    "judge_of",
    "load_vlm_judge",
]

PUBLISHED = Published(
    "vlm_judge",
    "Qwen/Qwen2.5-VL-7B-Instruct",
    ("config.json", "tokenizer_config.json", "*.safetensors|*.bin"),
    "that of the model that is taken; of this one Apache-2.0",
    also=("*.json", "*.jinja", "*.txt", "*.model"),
)
Mode: TypeAlias = Literal["points", "pairs", "clips", "checklist"]
Reading: TypeAlias = Literal["words", "probability"]

_CLIPS = Phrases("Video 1 is better", "Video 2 is better", "equally good")
_TASK = (
    "A text-to-image system was given this request:\n{prompt}\n\n"
    "Look at what was asked for (things, their number, colours, places, the style) and at how well the picture is made"
    " (clear, free of faults, pleasant).\n\n"
)


def default_template(
    mode: Mode, reading: Reading = "words", *, low: float = 1, high: float = 5, label: str = "Score", tag: str = ""
) -> Template:
    """Return the words with which a judge is asked where no others are given; it is told how its answer is read."""
    words = reading == "words"
    if mode == "points":
        task = f"{{image}}\n{_TASK}How good a result is the picture, from {low:g} (useless) to {high:g} (perfect)? "
        form = f"<{tag}>N</{tag}>" if tag else f"{label}: N" if label else ""
        if not words or not form:
            return Template(task + "Answer with the number only.")
        return Template(f"{task}Explain in a few sentences, then end with '{form}', the number in place of N.")
    if mode == "clips":
        task = (
            "Frames of video 1, in order:\n{image}\nFrames of video 2:\n{image}\nBoth were made for this request:\n"
            "{prompt}\n\nThe two move alike and show the same scene, so do not compare that. Compare faults only: limbs"
            " or objects that are too many, bent or out of shape, blur and distortion, things that appear from nowhere"
            " or melt away. Unless one has clearly fewer faults, they are equally good. Which has fewer? "
        )
        how = (
            "Give the reason in one or two sentences, then end with one of these lines: 'Video 1 is better', 'Video 2"
            " is better' or 'Both are equally good'."
        )
        return Template(task + (how if words else "Answer with 1 or 2 only."))
    if mode == "pairs":
        task = f"Image 1:\n{{image}}\nImage 2:\n{{image}}\n{_TASK}Which of the two pictures is the better result? "
        how = (
            "Explain in a few sentences, then end with one of these lines: 'Image 1 is better', 'Image 2 is better' or"
            " 'Both are equally good'."
        )
        return Template(task + (how if words else "Answer with 1 or 2 only."))
    return Template("{image}\n{prompt} Answer yes or no.")  # of a checklist; the prompt is its question


@dataclass(frozen=True)
class _Asking:
    """What is asked, and how the judge behind it is named."""

    mode: Mode
    reading: Reading
    template: Template
    checklist: Checklist | None
    limits: tuple[float, float]
    both_orders: bool
    resize: int | None
    log: str | None
    rate: float

    def judge(self, ask: Ask, version: str, licence: str) -> PointJudge | PairJudge | ChecklistJudge:
        """Return the judge.

        Raises:
            ConfigError: limits in the wrong order, a checklist too many or too few, or a template without its places.
        """
        low, high = self.limits
        if not low < high:
            raise ConfigError(f"reward 'vlm_judge': low must be below high, got {low:g} and {high:g}")
        if (self.mode == "checklist") != (self.checklist is not None):
            raise ConfigError("reward 'vlm_judge': mode checklist and the option checklist, a file, go together")
        self.template.check("vlm_judge", 2 if self.mode in ("pairs", "clips") else 1)
        kept: dict[str, Any] = {"resize": self.resize, "log": self.log}
        if self.checklist is not None:
            info = self._info(version, licence, self.checklist.range, self.checklist.digest)
            info = replace(info, needs_prompt=self.checklist.needs_prompt, aspects=self.checklist.names)
            return ChecklistJudge(info, ask, self.template, self.checklist, **kept)
        if self.mode == "points":
            return PointJudge(
                self._info(version, licence, self.limits, f"{low:g}..{high:g}"), ask, self.template, **kept
            )
        info = self._info(version, licence, (0.0, 1.0), "both orders" if self.both_orders else "one order")
        kept |= {"both_orders": self.both_orders, "probabilities": self.reading == "probability"}
        if self.mode == "clips":
            info = replace(info, media="video", version=f"{info.version}, {self.rate:g} frames a second")
            return ClipJudge(info, ask, self.template, rate=self.rate, **kept)
        return PairJudge(info, ask, self.template, **kept)

    def _info(self, version: str, licence: str, limits: tuple[float, float], detail: str) -> RewardInfo:
        return RewardInfo(
            name="vlm_judge",
            version="+".join([version, self.mode, self.reading, self.template.digest, detail]),
            licence=licence,
            range=limits,
            preprocessing=f"square {self.resize}" if self.resize else "",
        )


def judge_of(
    say: Say,
    *,
    mode: Mode = "points",
    template: Template | None = None,
    checklist: Checklist | None = None,
    low: float = 1,
    high: float = 5,
    label: str = "Score",
    tag: str = "",
    both_orders: bool = True,
    resize: int | None = None,
    rate: float = 8.0,
    log: str | None = None,
    version: str = "1",
    licence: str = "that of the model that answers",
) -> PointJudge | PairJudge | ChecklistJudge:
    """Return a judge whose questions a function answers in words, such as the client of a server.

    Args:
        say: N questions, each with ``parts`` (texts and PIL pictures in order) and ``system`` -> N texts.
        mode: ``"points"``: ``score``; ``"pairs"``, and ``"clips"`` of videos: ``compare``; ``"checklist"``: ``score``
            by questions of yes and no.
        template: of the question; default: `default_template`.
        checklist: its questions, for ``mode="checklist"``.
        low: smallest score that is asked for.
        high: largest; a number beyond is NaN.
        label: words before the number in the answer; ``""``: the answer is the number alone.
        tag: tag around the number, in place of a label.
        both_orders: of pairs: ask with either one first; a contradiction is a tie.
        resize: side of the square to which pictures are scaled.
        rate: of clips: frames a second that are shown.
        log: file to which every question and raw answer is added, a JSON line each.
        version: part of every stored score; name model, server and settings in it.
        licence: of what answers.

    Raises:
        ConfigError: a template without its places, limits in the wrong order, or no checklist where one is needed.
    """
    readers: dict[Mode, Callable[[str], float]] = {
        "points": partial(point_score, low=low, high=high, label="" if tag else label, tag=tag),
        "pairs": pair_verdict,
        "clips": partial(pair_verdict, phrases=_CLIPS),
        "checklist": yes_or_no,
    }
    words = template or default_template(mode, low=low, high=high, label=label, tag=tag)
    asking = _Asking(mode, "words", words, checklist, (low, high), both_orders, resize, log, rate)
    named = version if mode != "points" else f"{version}+{f'<{tag}>' if tag else label}"
    return asking.judge(in_words("vlm_judge", say, lambda text: [readers[mode](text)]), named, licence)


def _probabilities(vlm: VisionLanguage, mode: Mode, low: float, high: float) -> Ask:
    if mode in ("pairs", "clips"):
        return in_probabilities(vlm, {"1": 1.0, "2": 0.0})
    if mode == "checklist":
        return in_probabilities(vlm, {"yes": 1.0, "no": 0.0})
    if low != int(low) or high != int(high) or high - low > 100:
        raise ConfigError(f"reward 'vlm_judge': reading probability needs whole limits, got {low:g} and {high:g}")
    return in_probabilities(vlm, {str(n): float(n) for n in range(int(low), int(high) + 1)})


@registry.register("vlm_judge")
def load_vlm_judge(
    path: str | None = None,
    *,
    mode: Mode = "points",
    reading: Reading = "words",
    template: str | None = None,
    checklist: str | None = None,
    low: Number = 1,
    high: Number = 5,
    label: str = "Score",
    tag: str = "",
    both_orders: bool = True,
    resize: PositiveInt | None = None,
    rate: Positive = 8,
    max_new_tokens: PositiveInt = 256,
    log: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 1,
    allow_pickle: bool = False,
) -> Any:
    """Load any image-text-to-text model of transformers as a judge.

    What it says and cannot be read is NaN, counted in ``transcript.unread`` and warned of; it is never 0.

    Args:
        path: hub id or folder.
        mode: ``"points"``: a number for a picture; ``"pairs"``: the better one of two, a judge with ``compare`` alone;
            ``"clips"``: of two clips that move alike, the one with fewer faults, as DenseDPO asks of each second;
            ``"checklist"``: weighted answers to questions of yes and no, the pattern of VisionReward
            (arXiv 2412.21059).
        reading: ``"words"``: the model writes an answer, which is read; ``"probability"``: nothing is written, and the
            expected value over the answers' probabilities is taken: never unreadable, and fine-grained.
        template: text file with the question, ``{prompt}`` and ``{image}`` in it; default: ours. For
            ``reading="probability"`` it must ask for the number, for 1 or 2, or for yes or no, and nothing else.
        checklist: YAML file of questions; see `Checklist.read`.
        low: smallest score that is asked for.
        high: largest; a number beyond is NaN.
        label: words before the number in the answer; ``""``: the answer is the number alone.
        tag: tag around the number, in place of a label.
        both_orders: of pairs: ask with either one first; verdicts that contradict each other are a tie.
        resize: side of the square to which pictures are scaled; None: the model's own processing alone.
        rate: of clips: frames a second that are shown; DenseDPO's is 8.
        max_new_tokens: longest answer in words.
        log: file to which every question and raw answer is added, a JSON line each.
        device: where it runs.
        precision: of the network; probabilities are computed in float32.
        micro_batch: questions of equal shape that run at once. Above 1, rounding may tip a word of a written answer.
        allow_pickle: accept weights that only a pickle holds.

    Returns:
        a reward, with aspects for a checklist; for pairs a judge.

    Raises:
        ConfigError: no path, a template without its places, or limits that cannot be read as probabilities.
        ModelError: nothing that can be loaded safely lies there.
    """
    folder = PUBLISHED.find(path)
    usual = default_template(mode, reading, low=low, high=high, label=label, tag=tag)
    words = read_template("vlm_judge", template, usual)
    items = Checklist.read(checklist) if checklist else None
    vlm = open_vlm(
        "vlm_judge", folder, device=device, precision=precision, micro_batch=micro_batch, allow_pickle=allow_pickle
    )
    version = "+".join([content_version(folder), *([precision] if precision != "float32" else [])])
    if reading == "probability":
        asking = _Asking(mode, reading, words, items, (low, high), both_orders, resize, log, rate)
        return asking.judge(_probabilities(vlm, mode, low, high), version, PUBLISHED.licence)
    return judge_of(
        lambda questions: vlm.answers(questions, max_new_tokens),
        mode=mode,
        template=words,
        checklist=items,
        low=low,
        high=high,
        label=label,
        tag=tag,
        both_orders=both_orders,
        resize=resize,
        rate=rate,
        log=log,
        version=f"{version}+{max_new_tokens} tokens",
        licence=PUBLISHED.licence,
    )
