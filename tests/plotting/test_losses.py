"""Objectives as pictures: what is drawn is what was given."""

from __future__ import annotations

import numpy as np

from diffpref.plotting import plot_lines, plot_push


def test_lines_are_named_told_apart_and_carry_units() -> None:
    x = np.linspace(-1, 1, 5)
    ax = plot_lines(x, {f"line {k}": x * k for k in range(9)}, xlabel="margin (nats)", ylabel="loss (nats)")
    drawn = [line for line in ax.lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in drawn] == [f"line {k}" for k in range(9)]
    assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in drawn}) == 9
    assert np.array_equal(drawn[3].get_ydata(), x * 3)
    assert ax.get_xlabel() == "margin (nats)" and plot_lines(x, {"a": x}, xlabel="x", ylabel="y", ax=ax) is ax


def test_arrows_point_down_the_gradient() -> None:
    points = np.array([-1.0, 0.0, 1.0])
    ax = plot_push(points, points, np.array([-1.0, -2.0, 0.0]), np.array([1.0, 0.0, 0.0]), title="dpo")
    (arrows,) = ax.collections
    assert np.array_equal(arrows.U, [1.0, 2.0, 0.0]) and np.array_equal(arrows.V, [-1.0, 0.0, 0.0])
    assert ax.get_title() == "dpo" and "(nats)" in ax.get_xlabel()
