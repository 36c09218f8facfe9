"""Plots draw the data, axes say their unit, pyplot is never touched, pages refer to nothing outside."""

import io
import math
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from diffpref.core.errors import DataError, ShapeError
from diffpref.plotting import (
    PictureRow,
    as_uint8,
    new_axes,
    picture_grid,
    plot_accuracy,
    plot_agreement,
    plot_distributions,
    plot_errors,
    plot_fact_shares,
    plot_gradient_share,
    plot_logit_scale,
    plot_loss,
    plot_margin,
    plot_margin_by_timestep,
    plot_reliability,
    plot_win_rates,
    save_png,
    to_svg,
)
from diffpref.plotting.curves import running_mean, series
from diffpref.plotting.timesteps import by_timestep
from diffpref.ranking import reliability

ROWS = [
    {
        "step": i + 1,
        "loss": 0.7 - 0.01 * i,
        "rewards/margins": 0.1 * i,
        "rewards/accuracies": 0.5,
        "logits/scale": 0.2 * i,
        "errors/chosen_vs_reference": 1e-4 * i,
        "errors/rejected_vs_reference": 3e-4 * i,
    }
    for i in range(20)
]
DRAWERS = [plot_loss, plot_margin, plot_accuracy, plot_errors, plot_logit_scale]


@pytest.mark.parametrize("draw", DRAWERS)
def test_curve_has_labels_with_units_and_uses_the_given_axes(draw):
    ax = new_axes()
    assert draw(ROWS, ax=ax) is ax
    assert ax.get_xlabel() == "step (updates)"
    assert "(" in ax.get_ylabel()


@pytest.mark.parametrize("draw", DRAWERS)
def test_curve_of_a_run_without_the_metric_is_empty_not_an_error(draw):
    assert not draw([{"step": 1}]).get_legend_handles_labels()[0]


def test_light_line_is_the_data_and_heavy_line_their_mean():
    raw, mean = plot_loss([{"step": s, "loss": v} for s, v in [(10, 1.0), (20, 3.0), (30, 2.0)]]).lines
    assert raw.get_xdata().tolist() == [10.0, 20.0, 30.0] and raw.get_ydata().tolist() == [1.0, 3.0, 2.0]
    assert raw.get_alpha() < 0.5 < mean.get_linewidth()


def test_running_mean_shrinks_its_window_at_the_ends():
    mean, error = running_mean(np.array([1.0, 2.0, 6.0, 4.0]), 3)
    assert mean.tolist() == pytest.approx([1.5, 3.0, 4.0, 5.0])
    assert error[0] == pytest.approx(0.5 / np.sqrt(2))


def test_running_mean_of_one_value_is_that_value():
    mean, error = running_mean(np.array([2.5]), 1)
    assert (mean.tolist(), error.tolist()) == ([2.5], [0.0])


def test_values_that_are_missing_or_not_finite_are_left_out():
    rows = [{"step": 1, "loss": 1.0}, {"step": 2}, {"step": 3, "loss": None}, {"step": 4, "loss": float("nan")}]
    steps, values = series(rows, "loss")
    assert (steps.tolist(), values.tolist()) == ([1.0], [1.0])


def test_win_rates_are_drawn_in_percent_from_the_even_line():
    ax = plot_win_rates(["hps", "clip"], [0.6, 0.4], [0.5, 0.3], [0.7, 0.5])
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(50, 10.0), (50, -10.0)]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["hps", "clip"]
    assert [text.get_text() for text in ax.texts] == ["60.0 %", "40.0 %"]


def test_fact_shares_are_drawn_in_percent():
    base, aligned = plot_fact_shares(["red", "round"], [0.25, 0.5], [0.75, 0.5]).collections
    assert base.get_offsets().tolist() == [[25.0, 0.0], [50.0, 1.0]]
    assert aligned.get_offsets().tolist() == [[75.0, 0.0], [50.0, 1.0]]
    with pytest.raises(ShapeError, match="2 values"):
        plot_fact_shares(["red", "round"], [0.25], [0.75, 0.5])


def test_plotting_imports_neither_pyplot_nor_torch():
    code = (
        "import sys, diffpref.plotting as p; p.plot_loss([]); print({'matplotlib.pyplot', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_svg_is_balanced_self_contained_and_coloured_by_the_page():
    svg = to_svg(plot_errors(ROWS), 'errors of "chosen" & <rejected>')
    assert svg.startswith(
        '<svg class="plot" role="img" aria-label="errors of &quot;chosen&quot; &amp; &lt;rejected&gt;"'
    )
    assert "http" not in svg and "<style" not in svg and "<metadata" not in svg
    assert "var(--blue)" in svg and "var(--orange)" in svg and "#0072b2" not in svg
    assert "step (updates)" in svg  # text stays text
    assert 'width="' not in svg.split(">")[0]
    HTMLParser().feed(svg)


def test_svg_of_the_same_plot_is_the_same_and_of_two_plots_shares_no_id():
    one, again, other = to_svg(plot_loss(ROWS), "a"), to_svg(plot_loss(ROWS), "a"), to_svg(plot_errors(ROWS), "b")
    assert one == again

    def ids(text):
        return {part.split('"')[0] for part in text.split(' id="')[1:]}

    assert ids(one) and not ids(one) & ids(other)


def test_png_has_the_asked_size():
    from PIL import Image

    buffer = io.BytesIO()
    save_png(new_axes(2.0, 1.0), buffer, dpi=100)
    assert Image.open(buffer).size == (200, 100)


def flat(red, size=64):
    image = np.zeros((size, size, 3), np.uint8)
    image[..., 0] = red
    return image


def test_grid_shows_base_left_and_aligned_right():
    from PIL import Image

    grid = np.asarray(picture_grid([("one", flat(200), flat(90), ((1, 6), (6, 6)))]))
    columns = [np.flatnonzero((grid == (red, 0, 0)).all(-1).any(0)) for red in (200, 90)]
    assert columns[0].max() < columns[1].min()
    assert len(columns[0]) == len(columns[1]) == 192  # 64 pixels enlarged three times
    assert isinstance(picture_grid([("one", Image.fromarray(flat(1)), flat(2))]), Image.Image)


def test_grid_grows_with_rows_and_columns():
    pair = PictureRow("a caption", flat(1), flat(2))
    one, four = picture_grid([pair], columns=2), picture_grid([pair] * 4, columns=2)
    assert four.width > 1.8 * one.width and four.height > 1.6 * one.height


def test_long_captions_wrap_and_large_pictures_are_reduced():
    grid = picture_grid([("word " * 200, flat(1, 1024), flat(2, 1024))])
    assert grid.width < 500 and grid.height < 400


def test_more_right_facts_paint_more_full_dots():
    def blue(right):
        grid = np.asarray(picture_grid([("", flat(1), flat(2), ((0, 6), (right, 6)))])).astype(int)
        return int((np.abs(grid - (0, 114, 178)).sum(-1) == 0).sum())

    assert blue(0) < blue(3) < blue(6)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), "picture.png"])
def test_range_of_a_picture_is_never_guessed(image):
    with pytest.raises(DataError, match="expected a PIL image or a \\(H, W, 3\\) uint8 array"):
        as_uint8(image)


def test_grid_mistakes_are_told():
    with pytest.raises(DataError, match="at least one pair"):
        picture_grid([])
    with pytest.raises(DataError, match="one size"):
        picture_grid([("", np.zeros((64, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8))])


def test_means_by_timestep_are_of_the_last_half_and_an_absent_share_is_zero():
    rows = [
        {"step": s, "loss": 1.0, "margins/timestep_bin_3": 9.0, "gradient_share/timestep_bin_3": 1.0} for s in (1, 2)
    ]
    rows += [
        {"step": 3, "loss": 1.0, "margins/timestep_bin_3": 1.0, "gradient_share/timestep_bin_3": 1.0},
        {"step": 4, "loss": 1.0, "margins/timestep_bin_8": 4.0, "gradient_share/timestep_bin_8": 1.0},
    ]
    margins, shares = by_timestep(rows, "margins")[0], by_timestep(rows, "gradient_share")[0]
    assert (margins[3], margins[8]) == (1.0, 4.0) and np.isnan(margins[0])
    assert shares.tolist() == [0, 0, 0, 0.5, 0, 0, 0, 0, 0.5, 0]
    assert np.isnan(by_timestep([{"step": 1, "loss": 1.0}], "gradient_share")[0]).all()
    for draw, bars in ((plot_margin_by_timestep, [1.0, 4.0]), (plot_gradient_share, [0, 0, 0, 50, 0, 0, 0, 0, 50, 0])):
        ax = draw(rows)
        assert [bar.get_height() for bar in ax.patches] == bars and "(" in ax.get_ylabel()


def test_agreement_is_a_matrix_of_numbers():
    ax = plot_agreement(["clip", "hps"], [[1.0, 0.8], [0.8, 1.0]])
    assert sorted(text.get_text() for text in ax.texts) == ["", "", "80 %", "80 %"]
    assert "none" in [text.get_text() for text in plot_agreement(["a", "b"], [[1.0, math.nan], [math.nan, 1.0]]).texts]
    with pytest.raises(ShapeError, match="2 x 2"):
        plot_agreement(["a", "b"], [[1.0, 0.5]])


def test_groups_of_scores_share_bins_and_each_adds_up_to_all_of_it():
    ax = plot_distributions({"right": [1.0, 1.0, 1.0, 0.9], "wrong": [0.0, math.nan, 1.0]}, xlabel="score", num_bins=2)
    right, _, wrong, _ = (patch.get_data() for patch in ax.patches)
    assert list(right.edges) == list(wrong.edges) == [0.0, 0.5, 1.0]
    assert list(right.values) == [0.0, 100.0] and list(wrong.values) == [50.0, 50.0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["right (4)", "wrong (2)"]
    assert plot_distributions({"one": [3.0, 3.0]}, xlabel="score").get_xlim()[0] < 3.0  # equal scores have a bin too
    with pytest.raises(ShapeError, match="none in 'empty'"):
        plot_distributions({"full": [1.0], "empty": [math.nan]}, xlabel="score")


def test_reliability_shows_predicted_against_observed():
    bins = {"before": reliability([0.9, 0.9, 0.6], [1.0, 0.0, 1.0], 5), "after": reliability([0.6], [1.0], 5)}
    ax = plot_reliability(bins)
    assert list(ax.lines[1].get_xdata()) == pytest.approx([60.0, 90.0])
    assert list(ax.lines[1].get_ydata()) == pytest.approx([100.0, 50.0])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["before", "after"]
