"""Samples drawn by a role under the captions of a batch: keyed, in parts of one size, and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.core.contracts import Batch, Conditioning, Context, RewardInfo, Rows
from diffpref.core.errors import ShapeError
from diffpref.core.randomness import Random
from diffpref.models import registry as families
from diffpref.models.family import DenoiserFamily
from diffpref.sampling import SamplerSettings, draw_latents, score_latents

SHAPE = (4, 8, 8)


class Painter:
    """A role whose answer depends on what it is shown and told, row by row."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, rows: Rows, grad: bool = False) -> dict[str, Tensor]:
        assert not grad and not torch.is_grad_enabled()
        self.sizes.append(len(rows.inputs["noisy"]))
        told = rows.conditioning.tensors["prompt_embeds"].flatten(1).mean(dim=1).view(-1, 1, 1, 1)
        return {"prediction": 0.5 * rows.inputs["noisy"] + told}


class Reads:
    """A reward that returns the count that the metadata name, and remembers what it was asked."""

    def __init__(self, needs_metadata: bool = True, shape: tuple[int, ...] | None = None) -> None:
        self.info = RewardInfo("reads", "1", "", (0.0, 1.0), needs_metadata=needs_metadata)
        self.shape, self.prompts = shape, []  # type: tuple[int, ...] | None, list[str]

    def score(
        self, media: Sequence[Any], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        assert all(picture.shape == (64, 64, 3) and str(picture.dtype) == "uint8" for picture in media)
        self.prompts += prompts
        counts = [float(told["count"]) for told in metadata] if metadata else [0.0] * len(media)
        return torch.tensor(counts) if self.shape is None else torch.zeros(self.shape)


@pytest.fixture(scope="module")
def family() -> DenoiserFamily:
    return families.get("sd").tiny()


def batch(size: int = 5) -> Batch:
    told = Conditioning({"prompt_embeds": torch.arange(size).float().view(size, 1, 1) / 10})
    empty = Conditioning({"prompt_embeds": torch.full((1, 1, 1), -1.0)})
    prompts, metadata = tuple(f"prompt {i}" for i in range(size)), tuple({"count": i} for i in range(size))
    keys = tuple((f"record-{i}", 0) for i in range(size))
    return Batch(keys, {}, {"": told}, {}, empty, prompts, metadata)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_sample_is_a_function_of_its_record_and_calls_have_one_size(family: DenoiserFamily, scale: float) -> None:
    painter, given = Painter(), batch()
    context = Context(family, {"behaviour": painter}, Random(0))
    settings = SamplerSettings(3, scale, batch_size=2)
    made = draw_latents(given, context, "behaviour", settings, SHAPE)
    assert made.shape == (5, *SHAPE) and made.dtype == torch.float32
    rows = 2 * (2 if scale > 1 else 1)
    assert painter.sizes == [rows] * 9, "three parts, the last one padded"
    whole = draw_latents(given, context, "behaviour", replace(settings, batch_size=16), SHAPE)
    torch.testing.assert_close(whole, made, rtol=1e-5, atol=1e-5)
    turned = replace(given, keys=given.keys[::-1], conditioning={"": given.conditioning[""].take([4, 3, 2, 1, 0])})
    again = draw_latents(turned, context, "behaviour", settings, SHAPE)
    torch.testing.assert_close(again.flip(0), made, rtol=1e-5, atol=1e-5)
    other = draw_latents(given, replace(context, random=Random(1)), "behaviour", settings, SHAPE)
    assert not torch.allclose(other, made)


def test_scores_are_asked_under_the_prompts_and_with_what_records_say(family: DenoiserFamily) -> None:
    reads, plain = Reads(), Reads(needs_metadata=False)
    context = Context(family, {}, Random(0), scorers={"reads": reads, "plain": plain})
    given, latents = batch(), torch.zeros(5, *SHAPE)
    scores = score_latents(given, context, latents, at_once=2)
    assert scores.tolist() == [[float(i), 0.0] for i in range(5)]
    assert reads.prompts == plain.prompts == [f"prompt {i}" for i in range(5)]
    with pytest.raises(ShapeError, match="reward 'reads' reads metadata; give prompts"):
        score_latents(replace(given, metadata=()), context, latents)
    wrong = replace(context, scorers={"wrong": Reads(False, (5, 2))})
    with pytest.raises(ShapeError, match=r"reward 'wrong' gave \(5, 2\) scores for 5 samples"):
        score_latents(given, wrong, latents)
