"""Figures in one style: our runs in front (mean, with bars or a band from minimum to maximum over
trials), the paper's own curve behind them, thin and pale in the same colour and dash.

Everything takes the tidy table of `run`. Densities are drawn as percentages, accuracies too. What
draws into one panel takes its axes, `ax`; what makes a whole figure returns it.
"""

from .figures import (
    accuracy_at_checkpoints,
    by_network,
    distributions,
    learning_curves,
    race,
    speed_and_accuracy,
)
from .histograms import distribution
from .learning import against_dense, curves
from .legends import legend
from .lines import (
    accuracy_vs_density,
    early_stop_vs_density,
    metric_vs_density,
    metric_vs_number,
    path,
)
from .maps import connection_map, receptive_fields, sweep
from .style import panels

__all__ = [
    "accuracy_at_checkpoints",
    "accuracy_vs_density",
    "against_dense",
    "by_network",
    "connection_map",
    "curves",
    "distribution",
    "distributions",
    "early_stop_vs_density",
    "learning_curves",
    "legend",
    "metric_vs_density",
    "metric_vs_number",
    "panels",
    "path",
    "race",
    "receptive_fields",
    "speed_and_accuracy",
    "sweep",
]
