"""UnifiedReward: a vision-language model that was trained to judge pictures (CodeGoat24, arXiv 2503.05236)."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from diffpref.core.annotations import PositiveInt
from diffpref.core.contracts import RewardInfo
from diffpref.core.errors import ConfigError
from diffpref.rewards import registry
from diffpref.rewards._asking import Say, Template, in_words, read_template
from diffpref.rewards._judging import AspectJudge, PairJudge, PointJudge
from diffpref.rewards._published import Published
from diffpref.rewards._verdicts import aspect_scores, pair_verdict, point_score
from diffpref.rewards._vlm import open_vlm
from diffpref.rewards._weights import Precision, content_version

__all__ = ["ASPECTS", "PUBLISHED", "Mode", "default_template", "judge_of", "load_unified_reward"]

PUBLISHED = Published(
    "unified_reward",
    "CodeGoat24/UnifiedReward-2.0-qwen-7b",
    ("config.json", "tokenizer_config.json", "*.safetensors|*.bin"),
    "MIT (code); of the weights see the model's card",
    also=("*.json", "*.jinja", "*.txt"),
)
"""The models named ``qwen`` are those of transformers; ``7b`` and ``7b-v1.5`` have LLaVA's own layout."""

ASPECTS = {"alignment": "Alignment Score", "coherence": "Coherence Score", "style": "Style Score"}
"""What the models of version 2.0 tell apart -> the words that stand before its number."""
Mode: TypeAlias = Literal["points", "aspects", "pairs"]

_CAPTION = "The picture should show this text: [{prompt}]"


def default_template(mode: Mode, high: int = 5) -> Template:
    """Return a question in our own words that asks for the answers on which the models were trained.

    The words of the authors are not ours to copy; scores that can be compared with theirs need their template.
    """
    if mode == "pairs":
        return Template(
            "Image 1: {image}\nImage 2: {image}\nTwo pictures were made from one text: [{prompt}]\nWhich one shows it"
            " more faithfully and is the better picture? Give your reasons, then your verdict in exactly one of these"
            " forms: 'Image 1 is better', 'Image 2 is better' or 'Both images are equally good'."
        )
    if mode == "aspects":
        lines = "\n".join(f"{label} (1-5): X" for label in ASPECTS.values())
        return Template(
            f"{{image}}\n{_CAPTION}\nRate from 1 to 5, fractions allowed, how much of the text is there (alignment),"
            " how free the picture is of glitches and impossible things (coherence), and how pleasant it is to look at"
            f" whatever the text says (style). Answer with these three lines, a number in place of each X:\n{lines}"
        )
    return Template(
        f"{{image}}\n{_CAPTION}\nRate how faithfully it does so and how well it is made, together, from 1 to {high}."
        " End with 'Final Score: ' and the number."
    )


def judge_of(
    say: Say,
    *,
    mode: Mode = "points",
    high: int = 5,
    template: Template | None = None,
    legacy: bool = False,
    both_orders: bool = True,
    resize: int | None = 512,
    log: str | None = None,
    version: str = "1",
) -> PointJudge | PairJudge:
    """Return the judge over a function that answers, such as a client of a server that runs the model.

    Args:
        say: N questions, each with ``parts`` (texts and PIL pictures in order) and ``system`` -> N texts.
        mode: as in `load_unified_reward`.
        high: 5 or 10.
        template: of the question; default: `default_template`.
        legacy: as in `load_unified_reward`.
        both_orders: of pairs: ask with either one first; a contradiction is a tie.
        resize: side of the square to which pictures are scaled.
        log: file to which every question and raw answer is added.
        version: part of every stored score.

    Raises:
        ConfigError: a template without its places, or options that do not go together.
    """
    owner = PUBLISHED.reward
    if high != 5 and mode != "points":
        raise ConfigError(f"reward '{owner}': high {high} is a scale of mode points; mode {mode} has none to choose")
    if legacy and (mode == "aspects" or high != 5):
        raise ConfigError(f"reward '{owner}': legacy readings are of mode points with high 5 and of mode pairs")
    words = (template or default_template(mode, high)).check(owner, 2 if mode == "pairs" else 1)
    limits = {"points": (0.0, 1.0) if legacy else (1.0, float(high)), "aspects": (1.0, 5.0), "pairs": (0.0, 1.0)}
    named = [version, mode, f"1..{high}", words.digest, *(["legacy"] if legacy else [])]
    if mode == "pairs" and not both_orders:
        named.append("one order")
    info = RewardInfo(
        name=owner,
        version="+".join(named),
        licence=PUBLISHED.licence,
        range=limits[mode],
        preprocessing=f"square {resize}" if resize else "",
        aspects=tuple(ASPECTS) if mode == "aspects" else (),
    )
    if mode == "pairs":
        ask = in_words(owner, say, lambda text: [pair_verdict(text, legacy=legacy)])
        return PairJudge(info, ask, words, both_orders=both_orders, resize=resize, log=log)
    if mode == "aspects":
        labels = tuple(ASPECTS.values())
        ask = in_words(owner, say, lambda text: list(aspect_scores(text, labels, low=1, high=5).values()))
        return AspectJudge(info, ask, words, resize=resize, log=log)

    def read(text: str) -> list[float]:
        old: Literal["unified_reward"] | None = "unified_reward" if legacy else None
        return [point_score(text, low=1, high=high, label="Final Score", legacy=old)]

    return PointJudge(info, in_words(owner, say, read), words, resize=resize, log=log)


@registry.register("unified_reward")
def load_unified_reward(
    path: str | None = None,
    *,
    mode: Mode = "points",
    high: Literal[5, 10] = 5,
    template: str | None = None,
    legacy: bool = False,
    both_orders: bool = True,
    resize: PositiveInt | None = 512,
    max_new_tokens: PositiveInt = 1024,
    log: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    micro_batch: PositiveInt = 1,
    allow_pickle: bool = False,
) -> Any:
    """Load a UnifiedReward model that transformers can read.

    Args:
        path: hub id or folder.
        mode: ``"points"``: the number after "Final Score:"; ``"aspects"``: alignment, coherence and style, of which
            ``score`` is the mean (a choice of ours; the models of version 2.0 give no overall number);
            ``"pairs"``: the better one of two, a judge with ``compare`` alone.
        high: largest number of mode points: 5 as in Flow-GRPO, 10 as in the official choice of best and worst.
        template: text file with the question, ``{prompt}`` and ``{image}`` in it. The default is in our own words;
            give the authors' to compare with their numbers.
        legacy: read answers as published code does, to reproduce it. Points: Flow-GRPO's score / 5, with 0 for what it
            cannot read and 1 for 10. Pairs: whatever does not name the second one is a win of the first.
        both_orders: of pairs: ask with either one first; verdicts that contradict each other are a tie.
        resize: side of the square to which pictures are scaled (bicubic), 512 in the official code; None: as they are.
        max_new_tokens: longest answer.
        log: file to which every question and raw answer is added, a JSON line each.
        device: where it runs.
        precision: of the network.
        micro_batch: questions of equal shape that run at once. Above 1, rounding may tip a word of an answer.
        allow_pickle: accept weights that only a pickle holds.

    Returns:
        a reward, with aspects in mode aspects; for pairs a judge. What cannot be read is NaN, counted in
        ``transcript.unread`` and warned of.

    Raises:
        ConfigError: no path, a template without its places, or options that do not go together.
        ModelError: nothing that can be loaded safely lies there.
    """
    owner = PUBLISHED.reward
    folder = PUBLISHED.find(path)
    words = read_template(owner, template, default_template(mode, high))
    vlm = open_vlm(
        owner, folder, device=device, precision=precision, micro_batch=micro_batch, allow_pickle=allow_pickle
    )
    return judge_of(
        lambda questions: vlm.answers(questions, max_new_tokens),
        mode=mode,
        high=high,
        template=words,
        legacy=legacy,
        both_orders=both_orders,
        resize=resize,
        log=log,
        version="+".join(
            [
                content_version(folder),
                f"{max_new_tokens} tokens",
                *([precision] if precision != "float32" else []),
            ]
        ),
    )
