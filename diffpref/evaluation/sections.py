"""The sections of the report, each a function from data to HTML. Every text from outside passes through `esc`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffpref.evaluation.headline import Row, number, words
from diffpref.evaluation.provenance import Provenance
from diffpref.evaluation.results import Comparison, Item
from diffpref.evaluation.sheets import Sheet
from diffpref.evaluation.standings import Standings
from diffpref.evaluation.statistics import WinRate
from diffpref.plotting import (
    plot_accuracy,
    plot_agreement,
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
from diffpref.ranking import Agreement

__all__ = [
    "Shown",
    "agreement_plots",
    "curves",
    "esc",
    "facts_plot",
    "gallery",
    "how",
    "limits",
    "pair",
    "setting_rows",
    "several",
    "sheet",
    "table",
    "warnings",
]

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
VERDICTS = ("better", "worse", "undecided")
LEFT = ("measure", "win rate", "reading", "contender", "setting")  # columns set to the left; numbers go to the right


class Shown(NamedTuple):
    """A picture or clip in the page.

    Args:
        uri: a data URI; of a clip it moves.
        strip: frames of a clip side by side, as a data URI; empty for pictures.
    """

    uri: str
    strip: str = ""


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


def table(rows: Sequence[Row], names: tuple[str, str] = ("base", "aligned")) -> str:
    """Return rows as a table; the columns about winning are left out where no row has them."""
    wins = any(row.win for row in rows)
    heads = ["measure", *names, "difference", *(["win rate", "win / tie / loss"] if wins else []), "reading"]
    lines = []
    for row in rows:
        cells = f'<th scope="row">{esc(row.measure)}</th>'
        cells += "".join(f'<td class="num">{_numeric(cell)}</td>' for cell in (row.base, row.aligned, row.difference))
        if wins:
            cells += f"<td>{_track(row.win, row.reading) + _numeric(row.win_rate) if row.win else ''}</td>"
            cells += f'<td class="num">{esc(row.counts)}</td>'
        verdict = row.reading if row.reading in VERDICTS else "soft"
        lines.append(f'<tr>{cells}<td class="{verdict}">{esc(row.reading)}</td></tr>')
    head = "".join(f'<th scope="col"{"" if name in LEFT else " class=num"}>{esc(name)}</th>' for name in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _side(role: str, name: str, shown: Shown, prompt: str, facts: Mapping[str, bool]) -> str:
    found = ""
    if facts:
        right = sum(facts.values())
        dots = "&#9679;" * right + "&#9675;" * (len(facts) - right) if len(facts) <= 12 else ""
        wrong = ", ".join(words(fact) for fact, holds in facts.items() if not holds)
        found = f'<div><span class="dots" aria-hidden="true">{dots}</span> {right}/{len(facts)} right</div>'
        found += f'<div class="soft">wrong: {esc(wrong)}</div>' if wrong else ""
    image = f'<img src="{shown.uri}" alt="{esc(name)}: {esc(prompt)}" width="192" height="192" loading="lazy">'
    image += f'<img class="strip" src="{shown.strip}" alt="frames of the above" loading="lazy">' if shown.strip else ""
    return f'<div>{image}<div class="side {role}">{esc(name)}</div>{found}</div>'


def pair(item: Item, base: Shown, aligned: Shown, names: tuple[str, str] = ("base", "aligned")) -> str:
    """Return one pair: base left, aligned right, what is right in each, and every judge's scores.

    Args:
        item: the pair.
        base: the base model's picture.
        aligned: the aligned model's.
        names: of the two, as they are shown.
    """
    lines = []
    for name, before in item.base_scores.items():
        after = item.aligned_scores[name]
        shown = ["no score" if score is None else number(score) for score in (before, after)]
        change = "" if before is None or after is None else number(after - before, sign=True)
        cells = "".join(f'<td class="num">{_numeric(cell)}</td>' for cell in (*shown, change))
        lines.append(f"<tr><td>{esc(words(name))}</td>{cells}</tr>")
    scores = f'<table class="scores"><tbody>{"".join(lines)}</tbody></table>' if lines else ""
    sides = _side("base", names[0], base, item.prompt, item.base_facts)
    sides += _side("aligned", names[1], aligned, item.prompt, item.aligned_facts)
    caption = f'{esc(item.prompt)} <span class="seed">seed {item.seed}</span>'
    return f'<figure class="pair"><figcaption>{caption}</figcaption><div class="two">{sides}</div>{scores}</figure>'


def several(standings: Standings, position: int, pictures: Mapping[str, Shown]) -> str:
    """Return what all contenders drew from one prompt and seed, with every judge's score.

    Args:
        standings: every number.
        position: of the prompt and seed.
        pictures: contender -> its picture.
    """
    sides = []
    for name, shown in pictures.items():
        column, role = standings.columns[name], "base" if name == standings.against else "aligned"
        facts = {fact: bool(values[position]) for fact, values in column.facts.items()}
        lines = ""
        for judge, values in column.scores.items():
            score = values[position]
            told = "no score" if score is None else number(score)
            lines += f'<tr><td>{esc(words(judge))}</td><td class="num">{_numeric(told)}</td></tr>'
        scores = f'<table class="scores"><tbody>{lines}</tbody></table>' if lines else ""
        sides.append(f"<div>{_side(role, name, shown, standings.prompts[position], facts)}{scores}</div>")
    caption = f'{esc(standings.prompts[position])} <span class="seed">seed {standings.seeds[position]}</span>'
    return f'<figure class="pair"><figcaption>{caption}</figcaption><div class="many">{"".join(sides)}</div></figure>'


def warnings(lines: Sequence[str]) -> str:
    """Return what a reader should know before the numbers; nothing where there is nothing."""
    return "".join(f'<p class="warning">{esc(line)}</p>' for line in lines)


def sheet(one: Sheet) -> str:
    """Return a table of text as a section; the first column names the rows."""
    head = "".join(
        f'<th scope="col"{"" if k == 0 or head in LEFT else " class=num"}>{esc(head)}</th>'
        for k, head in enumerate(one.heads)
    )
    rows = ""
    for row in one.rows:
        cells = f'<th scope="row">{esc(row[0])}</th>'
        for head_text, cell in zip(one.heads[1:], row[1:], strict=True):
            kind = cell if head_text == "reading" else "" if head_text in LEFT else "num"
            cells += f'<td class="{esc(kind)}">{_numeric(cell) if kind == "num" else esc(cell)}</td>'
        rows += f"<tr>{cells}</tr>"
    body = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f'<section><h2>{esc(one.title)}</h2>{body}<p class="soft">{esc(one.note)}</p></section>'


def gallery(title: str, explanation: str, pairs: Iterable[str], *, wide: bool = False) -> str:
    """Return a section of pairs, or the sentence that there are none; ``wide`` gives each a line of its own."""
    shown = "".join(pairs)
    body = f'<div class="{"rows" if wide else "pairs"}">{shown}</div>' if shown else "<p>There are none.</p>"
    return f'<section><h2>{esc(title)}</h2><p class="soft">{esc(explanation)}</p>{body}</section>'


def facts_plot(comparison: Comparison) -> str:
    """Return how often each fact holds, before and after, as a drawing."""
    names = [words(fact.name) for fact in comparison.facts]
    base, aligned = zip(*((fact.base_share, fact.aligned_share) for fact in comparison.facts), strict=True)
    axes = plot_fact_shares(names, base, aligned, labels=comparison.names)
    return to_svg(axes, f"how often each fact holds, {comparison.names[0]} and {comparison.names[1]}")


def agreement_plots(found: Mapping[str, Agreement]) -> str:
    """Return the matrices of three scorers and more as drawings, by their title; two have one number, in a table."""
    figures = [
        f"<figure><figcaption>{esc(title)}</figcaption>"
        f"{to_svg(plot_agreement(list(map(words, one.names)), one.shares()), f'{title}: share of pairs')}</figure>"
        for title, one in found.items()
        if len(one.names) > 2
    ]
    return f'<section><div class="plots">{"".join(figures)}</div></section>' if figures else ""


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


def setting_rows(standings: Standings) -> list[tuple[str, str]]:
    """Return what the numbers depend on, name and value, in a stable order."""
    told = list(_flat({key: value for key, value in standings.setting.items() if key != "versions"}))
    for name, column in standings.columns.items():
        marks = {"weights": column.digest, "config sha256": column.config, "labels by": ", ".join(column.labelled_by)}
        listed = "; ".join(f"{key} {value}" for key, value in marks.items() if value)
        if column.source or listed:
            told.append((name, "; ".join(filter(None, (column.source, listed)))))
    return [*told, *((f"judge {judge}", version) for judge, version in standings.judges.items())]


def _flat(values: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}: ")
        elif value not in (None, ""):
            yield f"{path}{key}", str(value)


def how(provenance: Provenance, setting: Sequence[tuple[str, str]] = ()) -> str:
    """Return how the result was made.

    Args:
        provenance: what went into it.
        setting: what the numbers depend on, name and value.
    """
    seconds = {stage: f"{value:.1f}" for stage, value in provenance.seconds.items()}
    if len(seconds) > 1:
        seconds["total"] = f"{sum(provenance.seconds.values()):.1f}"
    counts = {name: f"{count:,}" for name, count in provenance.counts.items()}
    command = f"<pre>{esc(provenance.command)}</pre>" if provenance.command else ""
    lists = (
        _list("Setting", dict(setting))
        + _list("Counts", counts)
        + _list("Seconds of each stage", seconds)
        + _list("Seeds", provenance.seeds)
        + _list("Versions", provenance.versions)
    )
    config = ""
    if provenance.config:
        config = f"<details><summary>The complete config</summary><pre>{esc(provenance.config)}</pre></details>"
    return f'<section><h2>How it was made</h2>{command}<div class="facts">{lists}</div>{config}</section>'


def limits(standings: Standings, notes: Sequence[str]) -> str:
    """Return what the numbers do not say."""
    lines = [
        f"The intervals come from resampling the {standings.num_prompts:,} prompts ({standings.num_draws:,} draws). "
        "They say how the numbers would vary with other prompts of this kind, not with another training seed.",
        "Judges are models: they can share blind spots with the one that labelled the training pairs. "
        "Trust a judge that took no part in the labelling more, and your eyes most.",
        f"Several measures are shown at once; of measures without any difference, {100 - 100 * standings.level:.3g} % "
        "would look decided by chance alone.",
    ]
    for name, column in standings.columns.items():
        for judge, count in column.not_finite.items():
            if count:
                lines.append(
                    f"{words(judge)} gave no finite score for {count} {standings.noun} of {name}; they are left out."
                )
    items = "".join(f"<li>{esc(line)}</li>" for line in (*lines, *notes))
    return f"<section><h2>Limits</h2><ul>{items}</ul></section>"
