"""The report of a comparison: one self-contained page, the picture grid, and the numbers as JSON."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpref.core.errors import ShapeError
from diffpref.core.files import write_atomic
from diffpref.evaluation import sections
from diffpref.evaluation.headline import fact_rows, headline, sentence
from diffpref.evaluation.page import PAGE, STYLE
from diffpref.evaluation.provenance import Provenance
from diffpref.evaluation.results import Comparison
from diffpref.evaluation.selection import order_by_gain, random_sample
from diffpref.plotting import PictureRow, as_uint8, picture_grid

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffpref.core.contracts import Media

__all__ = ["write_report"]

LARGEST = 384  # pixels; larger pictures are reduced before they are put into the page


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _uri(image: Media) -> str:
    from PIL import Image

    picture = Image.fromarray(as_uint8(image))
    picture.thumbnail((LARGEST, LARGEST))  # never enlarges
    return "data:image/png;base64," + base64.b64encode(_png(picture)).decode("ascii")


def _grid_row(comparison: Comparison, index: int, base: Media, aligned: Media) -> PictureRow:
    item = comparison.items[index]
    counts = [(sum(facts.values()), len(facts)) for facts in (item.base_facts, item.aligned_facts)]
    return PictureRow(item.prompt, base, aligned, (counts[0], counts[1]) if item.base_facts else None)


def write_report(
    run_folder: Path,
    comparison: Comparison,
    base_images: Sequence[Media],
    aligned_images: Sequence[Media],
    *,
    title: str,
    metrics: Sequence[Mapping[str, Any]] = (),
    provenance: Provenance | None = None,
    notes: Sequence[str] = (),
    num_sampled: int = 12,
    num_extremes: int = 12,
) -> Path:
    """Write ``report.html``, ``grid.png`` and ``results.json`` into a folder.

    The page holds its pictures and curves itself, needs no script, and asks for nothing outside.

    Args:
        run_folder: made if need be.
        comparison: what was found.
        base_images: the base model's pictures, in the order of ``comparison.items``.
        aligned_images: the aligned model's.
        title: of the page.
        metrics: the rows of ``metrics.jsonl``; curves are drawn for the metrics that they hold.
        provenance: command, config, seeds, counts, seconds and versions.
        notes: further limits, a sentence each.
        num_sampled: pairs shown that nobody picked.
        num_extremes: pairs shown at each end of the ranking.

    Returns:
        The path of ``report.html``.

    Raises:
        ShapeError: not one picture a side for each pair.
    """
    if not len(comparison.items) == len(base_images) == len(aligned_images):
        raise ShapeError(
            f"expected {len(comparison.items)} pictures a side, got {len(base_images)} and {len(aligned_images)}"
        )
    run_folder = Path(run_folder)
    sampled = random_sample(len(comparison.items), num_sampled)
    better, worse = order_by_gain(comparison)

    def pairs(positions: Sequence[int]) -> list[str]:
        return [sections.pair(comparison.items[i], _uri(base_images[i]), _uri(aligned_images[i])) for i in positions]

    measure = "facts right, then by the first judge's score" if comparison.facts else "the first judge's score"
    shown = f"Ordered by the change in {measure}. The first {num_extremes} of"
    facts = ""
    if comparison.facts:
        rows, plot = sections.table(fact_rows(comparison)), sections.facts_plot(comparison)
        facts = f"<section><h2>Fact by fact</h2>{plot}{rows}</section>"
    level = f"{100 * comparison.level:g} %"
    body = [
        f'{sections.table(headline(comparison))}<p class="soft">Same prompts, seeds and sampler for both models. '
        f"In brackets: {level} paired bootstrap intervals over {comparison.num_prompts:,} prompts. Ties count "
        "one half. Better or worse: the interval of the win rate (of the difference, for shares) excludes an even "
        "result.</p>",
        sections.gallery(
            "Before and after",
            f"{len(sampled)} of {len(comparison.items)} pairs, drawn by a fixed seed before anyone saw them.",
            pairs(sampled),
        ),
        facts,
        sections.gallery("Largest gains", f"{shown} {len(better)} pairs that improved.", pairs(better[:num_extremes])),
        sections.gallery("Largest losses", f"{shown} {len(worse)} pairs that got worse.", pairs(worse[:num_extremes])),
        sections.curves(metrics),
        sections.how(provenance or Provenance()),
        sections.limits(comparison, notes),
    ]
    page = PAGE.substitute(
        title=sections.esc(title),
        style=STYLE,
        lead=sections.esc(sentence(comparison)),
        body="\n".join(filter(None, body)),
    )
    grid = picture_grid([_grid_row(comparison, i, base_images[i], aligned_images[i]) for i in sampled])
    comparison.save(run_folder / "results.json")
    write_atomic(run_folder / "grid.png", _png(grid))
    write_atomic(run_folder / "report.html", page)
    return run_folder / "report.html"
