"""Random numbers that objectives name."""

from __future__ import annotations

import torch

from diffpref.core.randomness import Random
from diffpref.training.drawn import drawn

NAMES = ("chosen_token_log_ratio", "chosen_token_draw", "chosen_token_redraw", "rejected_token_draw")


def test_a_draw_belongs_to_a_unit_of_a_record_whatever_the_batch_and_its_padding() -> None:
    keys = [("a", 0), ("b", 0)]

    def draws(length: int, keys: list[tuple[str | int, ...]]) -> dict[str, torch.Tensor]:
        masks = {f"{group}_token_mask": torch.ones(len(keys), length) for group in ("chosen", "rejected")}
        return drawn(NAMES, masks, keys, Random(3))  # type: ignore[arg-type]

    found, wider = draws(5, keys), draws(37, keys)  # type: ignore[arg-type]
    assert found.keys() == set(NAMES[1:])
    for name, numbers in found.items():
        assert numbers.shape == (2, 5) and bool(((numbers >= 0) & (numbers < 1)).all())
        assert torch.equal(wider[name][:, :5], numbers)
        assert torch.equal(draws(5, [("b", 0)])[name][0], numbers[1])
        assert not torch.equal(draws(5, [("b", 1)])[name][0], numbers[1])  # another visit
    assert len({tuple(numbers.flatten().tolist()) for numbers in found.values()}) == 3
