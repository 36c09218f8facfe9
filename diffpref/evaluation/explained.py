"""The page of one update done again: what the models were shown, what they answered, and what it counted."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpref.core.files import write_atomic
from diffpref.evaluation.page import PAGE, STYLE
from diffpref.evaluation.sections import esc
from diffpref.plotting import as_uint8
from diffpref.plotting.step_grid import COLUMNS, DIFFERENCE, RecordView, SampleView, StepView, differences, step_grid

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["explanation_json", "write_explanation"]

LARGEST = 384  # pixels of a picture in the page
MORE_STYLE = """
.record { border-top: 1px solid var(--line); padding: 1.2rem 0 .6rem; }
.record h2 { margin: 0; font-size: 1.1rem; }
.sample { display: grid; grid-template-columns: repeat(5, minmax(0, 8rem)) minmax(11rem, 15rem); gap: .6rem;
  align-items: start; margin: .7rem 0; }
.sample figure { margin: 0; font-size: .8rem; }
.sample img { display: block; width: 100%; border-radius: 4px; background: var(--line); image-rendering: pixelated; }
.sample table { font-size: .85rem; }
.share { height: 6px; border-radius: 3px; background: var(--line); max-width: 46rem; overflow: hidden; }
.share i { display: block; height: 100%; background: var(--blue); }
.chosen { color: var(--blue); } .rejected { color: var(--orange); }
@media (max-width: 50rem) { .sample { grid-template-columns: repeat(2, 1fr); } }
"""


def explanation_json(view: StepView) -> dict[str, Any]:
    """Return everything but the pictures, ready for JSON."""
    return {
        "format": 1,
        "run": view.run,
        "step": view.step,
        "replayed_from": view.start,
        "loss": view.loss,
        "logged_loss": view.logged,
        "exact": view.exact,
        "metrics": {name: value for name, value in view.metrics.items() if math.isfinite(value)},
        "records": [
            {
                "record": one.record,
                "visit": one.visit,
                "caption": one.caption,
                "caption_dropped": one.caption_dropped,
                "timestep": one.timestep,
                "loss": one.loss,
                "margin": one.margin,
                "gradient_share": one.gradient_share,
                "samples": {sample.group: sample.numbers for sample in one.samples},
            }
            for one in view.records
        ],
    }


def write_explanation(folder: Path, view: StepView) -> dict[str, Path]:
    """Write ``explain.html``, ``explain.png`` and ``explain.json``; return their paths by ending.

    The page holds its pictures itself, needs no script, and asks for nothing outside.
    """
    folder = Path(folder)
    paths = {ending: folder / f"explain.{ending}" for ending in ("html", "png", "json")}
    order = sorted(range(len(view.records)), key=lambda i: -(view.records[i].gradient_share or 0.0))
    legend = (
        "Left to right: the sample as training sees it (through the VAE), with this update's noise, and the clean "
        "image that each model implies from the noised one; last the difference of these two, amplified, grey where "
        "there is none. An error above the reference's means that the policy denoises this sample worse than the "
        "reference does. The largest share of the gradient comes first."
    )
    body = [
        f'<p class="soft">{esc(legend)}</p>',
        *(_record(view.records[i]) for i in order),
        _metrics(view.metrics),
    ]
    page = PAGE.substitute(
        title=esc(f"{view.run}, step {view.step}"),
        style=STYLE + MORE_STYLE,
        lead=esc(view.sentence),
        body="\n".join(body),
    )
    write_atomic(paths["html"], page)
    write_atomic(paths["png"], _png(step_grid(view)))
    write_atomic(
        paths["json"], json.dumps(explanation_json(view), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )
    return paths


def _record(record: RecordView) -> str:
    factor, changes = differences(record)
    share = record.gradient_share
    bar = "" if share is None else f'<div class="share"><i style="width:{100 * share:.2f}%"></i></div>'
    samples = "".join(_sample(s, change, factor) for s, change in zip(record.samples, changes, strict=True))
    told = f"{record.heading}. Record {record.record}, visit {record.visit}."
    heading = record.caption or "(no caption)"
    return f'<section class="record"><h2>{esc(heading)}</h2><p class="soft">{esc(told)}</p>{bar}{samples}</section>'


def _sample(sample: SampleView, change: Any, factor: float) -> str:
    figures = "".join(
        f"<figure>{_picture(picture, f'{sample.group}, {name}')}<figcaption>{esc(name)}</figcaption></figure>"
        for picture, name in zip((*sample.pictures, change), (*COLUMNS, f"{DIFFERENCE}, x {factor:.2g}"), strict=True)
    )
    rows = "".join(
        f'<tr><th scope="row">{esc(name)}</th><td class="num">{esc(f"{value:.5g}")}</td></tr>'
        for name, value in sample.numbers.items()
    )
    group = esc(sample.group)
    table = f'<div><b class="{group}">{group}</b><table>{rows}</table></div>'
    return f'<div class="sample">{figures}{table}</div>'


def _picture(picture: Any, description: str) -> str:
    if picture is None:
        return '<p class="soft">none</p>'
    from PIL import Image

    image = Image.fromarray(as_uint8(picture))
    image.thumbnail((LARGEST, LARGEST))
    code = base64.b64encode(_png(image)).decode("ascii")
    return f'<img alt="{esc(description)}" src="data:image/png;base64,{code}">'


def _metrics(metrics: Mapping[str, float]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{esc(name)}</th><td class="num">{esc(f"{value:.6g}")}</td></tr>'
        for name, value in metrics.items()
    )
    return f"<section><details><summary>All metrics of this update</summary><table>{rows}</table></details></section>"


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
