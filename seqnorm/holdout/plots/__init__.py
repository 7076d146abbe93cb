"""Plots of the report, drawn from the tables alone: a file a plot."""

from seqnorm.holdout.plots.deciles import deciles_plot
from seqnorm.holdout.plots.dose import dose_plot
from seqnorm.holdout.plots.forest import forest_plot
from seqnorm.holdout.plots.learning import best_of_plot, curve_plot, rate_plot
from seqnorm.holdout.plots.logos import filter_logos
from seqnorm.holdout.plots.plot import Plot
from seqnorm.holdout.plots.probe import probe_plot
from seqnorm.holdout.plots.strips import auroc_strips, calibration_strips, false_alarm_strips

__all__ = [
    "Plot",
    "auroc_strips",
    "best_of_plot",
    "calibration_strips",
    "curve_plot",
    "deciles_plot",
    "dose_plot",
    "false_alarm_strips",
    "filter_logos",
    "forest_plot",
    "probe_plot",
    "rate_plot",
]
