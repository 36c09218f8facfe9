"""One update made visible: for each record its samples, clean, noised, and as two models see through the noise."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diffpref.core.errors import DataError
from diffpref.plotting.canvas import BLUE, GREY, INK, LINE, ORANGE
from diffpref.plotting.pictures import caption_font, drawable, resize, sized_font

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

__all__ = ["COLUMNS", "DIFFERENCE", "RecordView", "SampleView", "StepView", "differences", "step_grid"]

TILE, GAP, MARGIN, TEXT = 124, 8, 22, 184  # pixels
SMALL = 13
COLUMNS = ("seen in training", "noised", "reference: clean", "policy: clean")
DIFFERENCE = "policy - reference"


@dataclass(frozen=True)
class SampleView:
    """One sample of a record.

    Args:
        group: its name, such as ``chosen``.
        pictures: as the model is trained on it, noised, the clean image that the reference implies, and that of the
            policy; each (H, W, 3) uint8, or None where there is none.
        numbers: name -> value.
    """

    group: str
    pictures: tuple[Any, Any, Any, Any]
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordView:
    """One record of an update.

    Args:
        record: its key.
        visit: how often it was seen before.
        caption: of the record.
        caption_dropped: whether the models were shown the empty caption instead.
        timestep: in the units of the model, and as a share of the path in ``noise``.
        noise: 0 is clean, 1 pure noise.
        loss: of the record.
        gradient_share: of the update; None where the objective reads no log-likelihood.
        margin: of the implicit rewards; None where the objective compares no pair.
        samples: two for a pair.
    """

    record: str
    visit: int
    caption: str
    caption_dropped: bool
    timestep: float
    noise: float
    loss: float
    gradient_share: float | None
    margin: float | None
    samples: tuple[SampleView, ...]

    @property
    def heading(self) -> str:
        """One line of numbers."""
        parts = [f"timestep {self.timestep:g}", f"loss {self.loss:.4g}"]
        parts += [] if self.margin is None else [f"margin {self.margin:+.3g}"]
        parts += [] if self.gradient_share is None else [f"{100 * self.gradient_share:.1f} % of the gradient"]
        return ", ".join([*parts, *(["shown the empty caption"] if self.caption_dropped else [])])


@dataclass(frozen=True)
class StepView:
    """An update.

    Args:
        run: its folder's name.
        step: the update's number in the log.
        start: the step that was replayed from.
        loss: as replayed.
        logged: as the log has it; None where the step was not logged.
        metrics: of the update.
        records: in the order of the batch.
    """

    run: str
    step: int
    start: int
    loss: float
    logged: float | None
    metrics: dict[str, float]
    records: tuple[RecordView, ...]

    @property
    def exact(self) -> bool | None:
        """Whether the replayed loss has the bits of the logged one; None where there is none."""
        return None if self.logged is None else self.loss == self.logged

    @property
    def sentence(self) -> str:
        """What was done, and how far it can be trusted."""
        origin = f"the checkpoint of step {self.start}" if self.start else "the start of the run"
        told = {
            True: "the same bits as in the log",
            False: f"the log has {self.logged}: other processes, threads, hardware or versions",
            None: "the log has no line of this step",
        }[self.exact]
        return f"Update {self.step}, replayed from {origin}. Loss {self.loss:.6g}: {told}."


def differences(record: RecordView) -> tuple[float, list[Any]]:
    """Return by how much the difference of what policy and reference take for clean is multiplied, and its pictures.

    Grey is no difference. One factor holds for all samples of the record, so that they can be compared.

    Returns:
        The factor, at most 64, and for each sample (H, W, 3) uint8, or None where a model gave no picture.
    """
    import numpy as np

    found = [
        None if reference is None or policy is None else policy.astype(np.float32) - reference
        for _, _, reference, policy in (sample.pictures for sample in record.samples)
    ]
    largest = max((float(np.quantile(np.abs(values), 0.995)) for values in found if values is not None), default=0.0)
    factor = min(64.0, 127.0 / largest) if largest else 64.0
    shown = [None if d is None else np.clip(np.rint(128 + factor * d), 0, 255).astype(np.uint8) for d in found]
    return factor, shown


def step_grid(view: StepView, *, columns: int = 2, tile: int = TILE) -> Image:
    """Return one image of all records of an update, a block each, the largest share of the gradient first.

    Args:
        view: the update.
        columns: blocks next to each other.
        tile: side of a shown picture, pixels.

    Raises:
        DataError: the update has no records.
    """
    from PIL import Image, ImageDraw

    if not view.records:
        raise DataError("an update without records cannot be drawn")
    order = sorted(range(len(view.records)), key=lambda i: -(view.records[i].gradient_share or 0.0))
    columns = min(columns, len(order))
    samples = max(len(record.samples) for record in view.records)
    block = 5 * (tile + GAP) + TEXT
    captions = [_wrapped(record.caption, block) for record in view.records]
    head = 21 * max(map(len, captions)) + 20 + 22  # captions, the numbers, the names of the columns
    cell = (block + 2 * MARGIN, head + samples * (tile + GAP) + MARGIN)
    top = 58
    rows = -(-len(order) // columns)
    sheet = Image.new("RGB", (columns * cell[0] + MARGIN, top + rows * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 12), f"{view.run}, step {view.step}", fill=INK, font=caption_font())
    draw.text((MARGIN, 34), view.sentence, fill=GREY, font=sized_font(SMALL))
    for place, i in enumerate(order):
        corner = (MARGIN + place % columns * cell[0], top + place // columns * cell[1])
        record = view.records[i]
        _draw_record(sheet, draw, record, captions[i], corner, block, tile)
    return sheet


def _wrapped(caption: str, width: int) -> list[str]:
    return textwrap.wrap(drawable(caption), width // 9, max_lines=2, placeholder=" ...") or ["(no caption)"]


def _draw_record(
    sheet: Image,
    draw: ImageDraw,
    record: RecordView,
    lines: Sequence[str],
    corner: tuple[int, int],
    block: int,
    tile: int,
) -> None:
    left, top = corner
    factor, changes = differences(record)
    draw.line((left, top, left + block, top), fill=LINE)
    for number, text in enumerate(lines):
        draw.text((left, top + 6 + 21 * number), text, fill=INK, font=caption_font())
    draw.text((left, top + 6 + 21 * len(lines)), drawable(record.heading), fill=INK, font=sized_font(SMALL))
    y = top + 6 + 21 * len(lines) + 22
    for number, name in enumerate((*COLUMNS, f"{DIFFERENCE}, x {factor:.2g}")):
        draw.text((left + number * (tile + GAP), y), name, fill=GREY, font=sized_font(11))
    y += 17
    colours = (BLUE, ORANGE, *[GREY] * len(record.samples))
    for sample, change, colour in zip(record.samples, changes, colours, strict=False):
        for number, picture in enumerate((*sample.pictures, change)):
            x = left + number * (tile + GAP)
            if picture is None:
                draw.text((x + 8, y + tile // 2 - 8), "none", fill=GREY, font=sized_font(SMALL))
            else:
                sheet.paste(resize(picture, tile).resize((tile, tile)), (x, y))
            draw.rectangle((x - 1, y - 1, x + tile, y + tile), outline=LINE)
        x = left + 5 * (tile + GAP)
        draw.text((x, y), sample.group, fill=colour, font=caption_font())
        for number, (name, value) in enumerate(sample.numbers.items()):
            line = y + 26 + 19 * number
            draw.text((x, line), name, fill=GREY, font=sized_font(11))
            text = f"{value:+.3g}" if name in SIGNED else f"{value:.4g}"
            draw.text((x + TEXT - 8, line), text, fill=INK, font=sized_font(SMALL), anchor="ra")
        y += tile + GAP


SIGNED = ("against reference", "log-ratio", "implicit reward")
"""Numbers whose sign says which way the policy moved."""
