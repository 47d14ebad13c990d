"""Figures in one style: our runs in front (mean, with bars or a band from minimum to maximum over trials), the paper's
own curve behind them, thin and pale in the same colour. Lines differ in colour, marker and dash.

Everything takes the tidy table of `plans.run`. Densities are drawn as percentages, accuracies too.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from . import paper as papers

# Okabe and Ito's colours, told apart by colour-blind readers; in the order of the paper's blue, orange, green, red.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 1.5)), "-", (0, (5, 1.5)), "-", "-", "-", "-")
TICKS = (100, 41, 17, 7, 2.9, 1.2, 0.5, 0.2)  # percent: every fourth round of Lenet
LABELS = {
    "early_stop_iteration": "Early-stop iteration (thousands)",
    "test_accuracy_at_early_stop": "Test accuracy at early stop (%)",
    "train_accuracy_at_early_stop": "Training accuracy at early stop (%)",
    "test_accuracy_at_end": "Test accuracy at the end (%)",
    "train_accuracy_at_end": "Training accuracy at the end (%)",
    "test_accuracy": "Test accuracy (%)",
    "val_loss": "Validation loss",
}
BEHIND = {"linewidth": 1.0, "alpha": 0.75, "linestyle": ":", "zorder": 0.6}  # the paper's mean
STYLE = {
    "figure.facecolor": "white", "savefig.facecolor": "white", "font.size": 9, "axes.titlesize": 9, 
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.6,
    "axes.axisbelow": True, "lines.linewidth": 1.6, "lines.markersize": 4, "legend.frameon": False, "svg.hashsalt": "lottery",
}  # fmt: skip


def panels(rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure in the book's style and its axes, row by row."""
    plt.rcParams.update(STYLE)
    if "inline" in plt.get_backend():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})
    figure, axes = plt.subplots(rows, columns, figsize=(3.7 * columns, 2.7 * rows), squeeze=False, layout="constrained")
    return figure, list(axes.flat)


def early_stop_vs_density(table: pd.DataFrame, ax: Axes, **how) -> None:
    """The iteration of the smallest validation loss over density; see `metric_vs_density`."""
    metric_vs_density(table, ax, "early_stop_iteration", **how)


def accuracy_vs_density(table: pd.DataFrame, ax: Axes, metric: str = "test_accuracy_at_early_stop", **how) -> None:
    """An accuracy over density; see `metric_vs_density`."""
    metric_vs_density(table, ax, metric, **how)


def metric_vs_density(table: pd.DataFrame, ax: Axes, metric: str, paper: str | None = None, lines: list[str] | None = None, log: bool = True) -> None:
    """Draw a metric of each line over density, the paper's curves behind.

    metric: of the table; paper: the figure whose curves are drawn, such as "fig04"; lines: only these; log: as in most
    of the paper's figures, else linear. Densities fall from left to right.
    """
    factor = 1e-3 if metric == "early_stop_iteration" else 100
    names = list(table.line.unique())
    theirs = _papers(table, paper, metric).drop_duplicates(["line", "round"])
    for i, name in enumerate(names):
        if lines and name not in lines:
            continue
        colour = COLOURS[i % len(COLOURS)]
        _behind(ax, theirs[theirs.line == name].sort_values("density"), factor, colour)
        ours = _spread(table[(table.line == name) & (table.metric == metric)], "round", factor)
        if len(ours):
            bars = [ours["mean"] - ours["min"], ours["max"] - ours["mean"]]
            ax.errorbar(
                100 * ours.density, ours["mean"], bars, color=colour, marker=MARKERS[i % 8], linestyle=DASHES[i % 8], label=name, elinewidth=0.8, capsize=1.5
            )
    _density_axis(ax, log)
    if metric == "early_stop_iteration":
        _mark_the_end(ax, table, factor)
        ax.set_ylim(bottom=0)
    ax.set_title(LABELS.get(metric, metric))


def curves(table: pd.DataFrame, ax: Axes, shown: list[tuple[str, int]], metric: str = "test_accuracy", paper: str | None = None) -> None:
    """Draw learning curves, one for each (line, round) in `shown`, as mean and band from minimum to maximum.

    A round has one colour in all panels of a figure, solid for tickets and dashed for their reinitialisations.
    """
    factor = 1 if metric.endswith("loss") else 100
    rounds = list(dict.fromkeys(table["round"]))
    theirs = _papers(table, paper, metric).drop_duplicates(["line", "round", "x"])
    bends = []
    for line, r in shown:
        rows = table[(table.line == line) & (table["round"] == r) & (table.metric == metric)]
        if rows.empty:
            continue  # this scale has fewer rounds
        colour = COLOURS[rounds.index(r) % len(COLOURS)]
        ours = _spread(rows, "iteration", factor)
        label = f"{100 * rows.density.iloc[0]:.1f} %" + (" reinit" if line == "random reinit" else "")
        their = theirs[(theirs.line == line) & (theirs["round"] == r) & (theirs.x <= ours.iteration.max())].sort_values("x")
        ax.plot(their.x / 1000, factor * their["mean"], color=colour, **BEHIND)
        ax.plot(ours.iteration / 1000, ours["mean"], color=colour, linestyle=DASHES[1] if line == "random reinit" else "-", label=label)
        ax.fill_between(ours.iteration / 1000, ours["min"], ours["max"], color=colour, alpha=0.15, linewidth=0)
        bends.append(ours["mean"].iloc[len(ours) // 8])
    if bends and not metric.endswith("loss"):
        ax.set_ylim(bottom=min(bends))
    ax.set_xlabel("Iteration (thousands)")
    ax.set_title(LABELS.get(metric, metric))


def legend(figure: Figure, axes: list[Axes], at: Axes | None = None) -> None:
    """One legend of all lines in `axes` and of what is drawn behind them, below the figure or in place of the axes `at`."""
    entries = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())}
    if any(line.get_linestyle() == BEHIND["linestyle"] for ax in axes for line in ax.lines):
        shaded = " (shaded: its minimum to maximum)" if any(ax.containers for ax in axes) else ""  # curves shade our own spread
        entries[f"the paper{shaded}"] = Line2D([], [], color="#777777", **BEHIND)
    if at is None:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=2)
    else:
        at.set_axis_off()
        at.legend(entries.values(), entries.keys(), loc="center left")


def _spread(rows: pd.DataFrame, by: str, factor: float) -> pd.DataFrame:
    """Mean, min and max of a line's values at each round or iteration, over trials and draws."""
    grouped = rows.groupby(by, as_index=False).agg(density=("density", "mean"), mean=("value", "mean"), min=("value", "min"), max=("value", "max"))
    grouped[["mean", "min", "max"]] *= factor
    return grouped.sort_values("density", ascending=False) if by == "round" else grouped


def _papers(table: pd.DataFrame, figure: str | None, metric: str) -> pd.DataFrame:
    """The paper's points of a metric; none at smoke scale, whose data are others."""
    if figure is None or table.attrs["scale"] == "smoke":
        return pd.DataFrame(columns=["line", "round", "x", "density", "mean", "min", "max"])
    points = papers.curves(figure)
    return points[points.metric == metric]


def _behind(ax: Axes, points: pd.DataFrame, factor: float, colour: str) -> None:
    if points.empty:
        return
    at = 100 * points.density
    ax.fill_between(at, factor * points["min"], factor * points["max"], color=colour, alpha=0.13, linewidth=0, zorder=0.5)
    ax.plot(at, factor * points["mean"], color=colour, **BEHIND)


def _density_axis(ax: Axes, log: bool) -> None:
    ax.set_xlabel("Weights remaining (%)")
    if log:
        ax.set_xscale("log")
        low = 0.93 * min(ax.dataLim.x0, 100)
        ax.set_xlim(110, low)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks([tick for tick in TICKS if tick >= low])
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ax.set_xlim(103, 0)
    ax.yaxis.set_major_locator(MaxNLocator(6))


def _mark_the_end(ax: Axes, table: pd.DataFrame, factor: float) -> None:
    """A line where our training ends, if the paper's goes on: no early stop of ours can lie above it."""
    ends = table.iteration[table.metric == "test_accuracy_at_end"]
    if len(ends) and ends.max() * factor < ax.dataLim.y1:
        ax.axhline(ends.max() * factor, color="#999999", linewidth=0.8, zorder=0.4)
        ax.annotate("our training ends", (1, ends.max() * factor), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7, color="#666666")
