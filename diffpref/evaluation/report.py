"""The report of an evaluation: one self-contained page, the same in Markdown, a grid of pictures, and all numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpref.core.errors import ShapeError
from diffpref.core.files import write_atomic
from diffpref.evaluation import sections
from diffpref.evaluation.agreeing import agreement_sheet, judges_agreement
from diffpref.evaluation.compare import comparison
from diffpref.evaluation.galleries import Galleries, Pictures
from diffpref.evaluation.headline import TIES, fact_rows, headline, sentence
from diffpref.evaluation.independence import independence_warnings
from diffpref.evaluation.markdown import markdown
from diffpref.evaluation.page import PAGE, STYLE
from diffpref.evaluation.provenance import Provenance
from diffpref.evaluation.results import Comparison
from diffpref.evaluation.selection import random_sample
from diffpref.evaluation.sheets import make_sheets
from diffpref.evaluation.standings import Standings
from diffpref.evaluation.table import make_table

if TYPE_CHECKING:
    from diffpref.core.contracts import Media
    from diffpref.ranking import Agreement

__all__ = ["Pictures", "kept_pictures", "write_report"]

AGREEING = {
    "judges": ("How far the judges agree", "About the pictures of all contenders."),
    "scorers": ("How far the scorers agree", "About the candidates from which the training pairs were made."),
}
"""What is compared -> title and candidates."""
FEWER = 4  # pairs at each end of the ranking, for each of several contenders


def kept_pictures(images: Mapping[str, Sequence[Media]], count: int) -> Pictures:
    """Return what shows pictures that lie in memory.

    Args:
        images: contender -> its pictures.
        count: how many each must have.

    Raises:
        ShapeError: a contender has another number.
    """
    if wrong := [name for name, shown in images.items() if len(shown) != count]:
        given = " and ".join(str(len(shown)) for shown in images.values())
        raise ShapeError(f"expected {count} pictures a side, got {given} (of {wrong[0]})")
    return lambda name, positions: [images[name][position] for position in positions]


def write_report(
    run_folder: Path,
    standings: Standings,
    pictures: Pictures | None,
    *,
    title: str,
    metrics: Sequence[Mapping[str, Any]] = (),
    provenance: Provenance | None = None,
    notes: Sequence[str] = (),
    scorers: Agreement | None = None,
    num_sampled: int = 12,
    num_extremes: int = 12,
) -> Path:
    """Write ``report.html``, ``report.md``, ``results.json`` and, where there are pictures, ``grid.png``.

    Clips stand in ``grid.png`` as strips of frames and move in ``grid.gif``, and in ``grid.mp4`` where PyAV is there.

    The page holds its pictures and curves itself, needs no script, and asks for nothing outside. Equal standings give
    equal numbers.

    Args:
        run_folder: made if need be.
        standings: what was found.
        pictures: shows those that are asked for; None: the report does without.
        title: of the page.
        metrics: the rows of ``metrics.jsonl``; curves are drawn for the metrics that they hold.
        provenance: command, config, seeds, counts, seconds and versions.
        notes: further limits, a sentence each; ``results.json`` keeps them.
        scorers: how far the scorers of the training data's candidates agree; the judges' agreement about the pictures
            of this evaluation is told where there are two of them.
        num_sampled: pairs shown that nobody picked.
        num_extremes: pairs shown at each end of the ranking; of several contenders fewer of each.

    Returns:
        The path of ``report.html``.
    """
    run_folder = Path(run_folder)
    found = [comparison(standings, name) for name in standings.others]
    table = make_table(standings)
    sheets, warnings = make_sheets(standings, table), independence_warnings(standings)
    judges = judges_agreement(standings)
    agreeing = {name: one for name, one in (("judges", judges), ("scorers", scorers)) if one is not None}
    sheets += [agreement_sheet(one, *AGREEING[name]) for name, one in agreeing.items()]
    provenance = provenance or Provenance()
    sampled = random_sample(len(standings.prompts), num_sampled)
    shown = Galleries(standings, pictures, num_extremes if len(found) == 1 else min(num_extremes, FEWER))
    body = [
        sections.warnings(warnings),
        *(_contender(one, shown, sampled, alone=len(found) == 1) for one in found),
        shown.several(sampled) if len(found) > 1 else "",
        *map(sections.sheet, sheets),
        sections.agreement_plots({AGREEING[name][0]: one for name, one in agreeing.items()}),
        sections.curves(metrics),
        sections.how(provenance, sections.setting_rows(standings)),
        sections.limits(standings, notes),
    ]
    lead = [sentence(one) for one in found]
    page = PAGE.substitute(
        title=sections.esc(title),
        style=STYLE,
        lead="<br>".join(map(sections.esc, lead)),
        body="\n".join(filter(None, body)),
    )
    told = {name: one.to_json() for name, one in agreeing.items()}
    standings.save(
        run_folder / "results.json", table=table.to_json(), warnings=warnings, agreement=told, notes=list(notes)
    )
    for name, content in shown.sheets(sampled).items():
        write_atomic(run_folder / name, content)
    setting = sections.setting_rows(standings)
    write_atomic(run_folder / "report.md", markdown(title, lead, sheets, warnings, setting, provenance))
    write_atomic(run_folder / "report.html", page)
    return run_folder / "report.html"


def _contender(one: Comparison, shown: Galleries, sampled: Sequence[int], *, alone: bool) -> str:
    """Return the sections about one contender: the headline, its facts, its pictures."""
    names, level = one.names, f"{100 * one.level:g} %"
    facts = ""
    if one.facts:
        rows, plot = sections.table(fact_rows(one), names), sections.facts_plot(one)
        facts = f"<section><h2>Fact by fact</h2>{plot}{rows}</section>"
    head = (
        f'{sections.table(headline(one), names)}<p class="soft">Same prompts, seeds and sampler for both models. '
        f"In brackets: {level} paired bootstrap intervals over {one.num_prompts:,} prompts. Ties count "
        f"{TIES[one.ties]}. Better or worse: the interval of the win rate (of the difference, for shares) excludes an"
        " even result.</p>"
    )
    body = [head if alone else f"<section><h2>{sections.esc(names[1])}</h2>{head}</section>"]
    body += [shown.sample(one, sampled)] if alone else []
    return "\n".join(filter(None, [*body, facts, *shown.extremes(one)]))
