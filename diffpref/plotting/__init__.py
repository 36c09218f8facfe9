"""Plots: functions that take data and an optional ``ax`` and return the ``Axes``. No pyplot, no global state."""

from diffpref.plotting.bars import plot_fact_shares, plot_win_rates
from diffpref.plotting.canvas import new_axes, save_png, to_svg
from diffpref.plotting.curves import plot_accuracy, plot_errors, plot_logit_scale, plot_loss, plot_margin, plot_series
from diffpref.plotting.labelled import labelled_grid
from diffpref.plotting.losses import plot_lines, plot_push
from diffpref.plotting.pictures import PictureRow, as_uint8, picture_grid
from diffpref.plotting.scorers import plot_agreement, plot_distributions, plot_reliability
from diffpref.plotting.timesteps import plot_gradient_share, plot_margin_by_timestep

__all__ = [
    "PictureRow",
    "as_uint8",
    "labelled_grid",
    "new_axes",
    "picture_grid",
    "plot_accuracy",
    "plot_agreement",
    "plot_distributions",
    "plot_errors",
    "plot_fact_shares",
    "plot_gradient_share",
    "plot_lines",
    "plot_logit_scale",
    "plot_loss",
    "plot_margin",
    "plot_margin_by_timestep",
    "plot_push",
    "plot_reliability",
    "plot_series",
    "plot_win_rates",
    "save_png",
    "to_svg",
]
