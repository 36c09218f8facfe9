"""The sections of the report, each a function from data to HTML. Every text from outside passes through `esc`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from diffpref.evaluation.headline import Row, number, words
from diffpref.evaluation.provenance import Provenance
from diffpref.evaluation.results import Comparison, Item
from diffpref.evaluation.statistics import WinRate
from diffpref.plotting import (
    plot_accuracy,
    plot_errors,
    plot_fact_shares,
    plot_gradient_share,
    plot_logit_scale,
    plot_loss,
    plot_margin,
    plot_margin_by_timestep,
    to_svg,
)
from diffpref.plotting.curves import series
from diffpref.plotting.timesteps import by_timestep

__all__ = ["curves", "esc", "facts_plot", "gallery", "how", "limits", "pair", "table"]

CURVES = (
    ("Loss", "loss", plot_loss, "Below ln 2 = 0.693, the loss of a policy that still equals its reference."),
    ("Margin", "rewards/margins", plot_margin, "Implicit reward of the chosen minus that of the rejected."),
    ("Accuracy", "rewards/accuracies", plot_accuracy, "Training pairs whose chosen side has the higher reward."),
    (
        "Denoising error against the reference",
        "errors/chosen_vs_reference",
        plot_errors,
        "The rejected should rise; a chosen error that shoots up means that good pictures are unlearnt too.",
    ),
    (
        "Logit scale",
        "logits/scale",
        plot_logit_scale,
        "Mean magnitude of what the sigmoid is given. Near 0 nothing is learnt; beyond about 5 most pairs are settled.",
    ),
)
BINNED = (
    (
        "Margin by timestep",
        "margins",
        plot_margin_by_timestep,
        "Where on the way from clean to noise the policy tells the two apart; second half of the run.",
    ),
    (
        "Gradient by timestep",
        "gradient_share",
        plot_gradient_share,
        "Which noise levels the updates came from; a settled pair gives none. Second half of the run.",
    ),
)
LEFT = ("measure", "win rate", "reading")  # columns set to the left; numbers go to the right


def esc(value: Any) -> str:
    """Return a value as text that is safe between tags and inside a quoted attribute."""
    return html.escape(str(value), quote=True)


def _numeric(text: str) -> str:
    return esc(text).replace("-", "&minus;")


def _track(win: WinRate, verdict: str) -> str:
    """Return a small drawing of an interval on 0..100 %, with the even line."""
    low, width, rate = 100 * win.low, 100 * (win.high - win.low), 100 * win.rate
    return (
        f'<span class="track {verdict}" aria-hidden="true"><i class="rail"></i><i class="even"></i>'
        f'<i class="range" style="left:{low:.2f}%;width:{width:.2f}%"></i>'
        f'<i class="dot" style="left:{rate:.2f}%"></i></span>'
    )


def table(rows: Sequence[Row]) -> str:
    """Return rows as a table; the columns about winning are left out where no row has them."""
    wins = any(row.win for row in rows)
    heads = ["measure", "base", "aligned", "difference", *(["win rate", "win / tie / loss"] if wins else []), "reading"]
    lines = []
    for row in rows:
        cells = f'<th scope="row">{esc(row.measure)}</th>'
        cells += "".join(f'<td class="num">{_numeric(cell)}</td>' for cell in (row.base, row.aligned, row.difference))
        if wins:
            cells += f"<td>{_track(row.win, row.reading) + _numeric(row.win_rate) if row.win else ''}</td>"
            cells += f'<td class="num">{esc(row.counts)}</td>'
        lines.append(f'<tr>{cells}<td class="{row.reading}">{row.reading}</td></tr>')
    head = "".join(f'<th scope="col"{"" if name in LEFT else " class=num"}>{name}</th>' for name in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _side(name: str, picture: str, prompt: str, facts: Mapping[str, bool]) -> str:
    found = ""
    if facts:
        right = sum(facts.values())
        dots = "&#9679;" * right + "&#9675;" * (len(facts) - right) if len(facts) <= 12 else ""
        wrong = ", ".join(words(fact) for fact, holds in facts.items() if not holds)
        found = f'<div><span class="dots" aria-hidden="true">{dots}</span> {right}/{len(facts)} right</div>'
        found += f'<div class="soft">wrong: {esc(wrong)}</div>' if wrong else ""
    image = f'<img src="{picture}" alt="{name}: {esc(prompt)}" width="192" height="192" loading="lazy">'
    return f'<div>{image}<div class="side {name}">{name}</div>{found}</div>'


def pair(item: Item, base: str, aligned: str) -> str:
    """Return one pair: base left, aligned right, what is right in each, and every judge's scores.

    Args:
        item: the pair.
        base: the base model's picture as a data URI.
        aligned: the aligned model's.
    """
    lines = []
    for name, before in item.base_scores.items():
        after = item.aligned_scores[name]
        shown = ["no score" if score is None else number(score) for score in (before, after)]
        change = "" if before is None or after is None else number(after - before, sign=True)
        cells = "".join(f'<td class="num">{_numeric(cell)}</td>' for cell in (*shown, change))
        lines.append(f"<tr><td>{esc(words(name))}</td>{cells}</tr>")
    scores = f'<table class="scores"><tbody>{"".join(lines)}</tbody></table>' if lines else ""
    sides = _side("base", base, item.prompt, item.base_facts) + _side(
        "aligned", aligned, item.prompt, item.aligned_facts
    )
    caption = f'{esc(item.prompt)} <span class="seed">seed {item.seed}</span>'
    return f'<figure class="pair"><figcaption>{caption}</figcaption><div class="two">{sides}</div>{scores}</figure>'


def gallery(title: str, explanation: str, pairs: Iterable[str]) -> str:
    """Return a section of pairs, or the sentence that there are none."""
    shown = "".join(pairs)
    body = f'<div class="pairs">{shown}</div>' if shown else "<p>There are none.</p>"
    return f'<section><h2>{esc(title)}</h2><p class="soft">{esc(explanation)}</p>{body}</section>'


def facts_plot(comparison: Comparison) -> str:
    """Return how often each fact holds, before and after, as a drawing."""
    names = [words(fact.name) for fact in comparison.facts]
    base, aligned = zip(*((fact.base_share, fact.aligned_share) for fact in comparison.facts), strict=True)
    return to_svg(plot_fact_shares(names, base, aligned), "how often each fact holds, base and aligned")


def curves(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return the curves of training for which there are values; nothing without any."""
    figures = [
        f"<figure><figcaption>{esc(title)}</figcaption>"
        f'<p class="soft">{esc(note)}</p>{to_svg(draw(metrics), f"{title} against the step")}</figure>'
        for title, name, draw, note in CURVES
        if len(series(metrics, name)[0])
    ]
    figures += [
        f"<figure><figcaption>{esc(title)}</figcaption>"
        f'<p class="soft">{esc(note)}</p>{to_svg(draw(metrics), title)}</figure>'
        for title, name, draw, note in BINNED
        if np.isfinite(by_timestep(metrics, name)[0]).any()
    ]
    if not figures:
        return ""
    note = "Light: each step. Heavy: running mean. Band: its 95 % interval."
    return f'<section><h2>Training</h2><p class="soft">{note}</p><div class="plots">{"".join(figures)}</div></section>'


def _list(title: str, values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    lines = "".join(f'<tr><th scope="row">{esc(k)}</th><td class="num">{esc(v)}</td></tr>' for k, v in values.items())
    return f"<div><h3>{title}</h3><table><tbody>{lines}</tbody></table></div>"


def how(provenance: Provenance) -> str:
    """Return how the result was made."""
    seconds = {stage: f"{value:.1f}" for stage, value in provenance.seconds.items()}
    if len(seconds) > 1:
        seconds["total"] = f"{sum(provenance.seconds.values()):.1f}"
    counts = {name: f"{count:,}" for name, count in provenance.counts.items()}
    command = f"<pre>{esc(provenance.command)}</pre>" if provenance.command else ""
    lists = (
        _list("Counts", counts)
        + _list("Seconds of each stage", seconds)
        + _list("Seeds", provenance.seeds)
        + _list("Versions", provenance.versions)
    )
    config = ""
    if provenance.config:
        config = f"<details><summary>The complete config</summary><pre>{esc(provenance.config)}</pre></details>"
    return f'<section><h2>How it was made</h2>{command}<div class="facts">{lists}</div>{config}</section>'


def limits(comparison: Comparison, notes: Sequence[str]) -> str:
    """Return what the numbers do not say."""
    lines = [
        f"The intervals come from resampling the {comparison.num_prompts:,} prompts ({comparison.num_draws:,} draws). "
        "They say how the numbers would vary with other prompts of this kind, not with another training seed.",
        "Judges are models: they can share blind spots with the one that labelled the training pairs. "
        "Trust a judge that took no part in the labelling more, and your eyes most.",
        f"Several measures are shown at once; of measures without any difference, {100 - 100 * comparison.level:.3g} % "
        "would look decided by chance alone.",
    ]
    for judge in comparison.judges:
        if judge.win.dropped:
            lines.append(f"{words(judge.name)} gave no finite score for {judge.win.dropped} pairs; they are left out.")
    items = "".join(f"<li>{esc(line)}</li>" for line in (*lines, *notes))
    return f"<section><h2>Limits</h2><ul>{items}</ul></section>"
