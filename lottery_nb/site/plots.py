"""Figures in one style: our runs in front (mean, with bars or a band from minimum to maximum over
trials), the paper's own curve behind them, thin and pale in the same colour and dash. A condition
has its colour in the whole book: winning tickets are blue, random reinitialisations orange, random
sparse networks green.

Everything takes the tidy table of `run`. Densities are drawn as percentages, accuracies too.
"""

import re
from collections.abc import Iterator
from itertools import chain, cycle
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ..analysis import claims
from ..analysis import paper as papers
from ..core import saliency
from . import labels
from .readings import Drawn, drawn, keep, keep_key

# Okabe and Ito's colours, told apart by colour-blind readers; in the order of the paper's blue,
# orange, green, red.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 1.5)), "-", (0, (5, 1.5)), "-", "-", "-", "-")
DASHED = DASHES[1]
# Colour, marker and dash by strategy and control
CONDITIONS = {
    ("iterative", "winning ticket"): (COLOURS[0], "o", "-"),
    ("iterative", "random reinit"): (COLOURS[1], "s", DASHED),
    ("iterative", "random sparse"): (COLOURS[2], "^", DASHED),
    ("iterative", "reinit from the ticket"): (COLOURS[5], "v", DASHED),
    ("iterative", "pruned before training"): (COLOURS[6], "P", DASHED),
    ("iterative", "reinit with its signs"): (COLOURS[2], "^", "-"),
    ("iterative", "constants with its signs"): (COLOURS[4], "D", "-"),
    ("iterative", "constants"): (COLOURS[7], "D", DASHED),
    ("iterative", "random signs"): (COLOURS[3], "v", DASHED),
    ("iterative", "flipped signs"): (COLOURS[6], "P", DASHED),
    **{
        ("iterative", f"{change}{criterion}"): look
        for criterion in saliency.CRITERIA
        for change, look in {
            "": (COLOURS[4], "D", "-"),
            "shuffled ": (COLOURS[3], "v", DASHED),
            "shuffled by input ": (COLOURS[6], "P", DASHED),
            "reinitialised ": (COLOURS[1], "s", DASHED),
        }.items()
    },
    ("one-shot", "winning ticket"): (COLOURS[4], "D", "-"),
    ("one-shot", "random reinit"): (COLOURS[3], "v", DASHED),
    ("continued", "winning ticket"): (COLOURS[6], "P", "-"),
}
TICKS = (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1)  # percent
LABELS = {
    "early_stop_iteration": "Early-stop iteration (thousands)",
    "early_stop_iteration_test": "Early-stop iteration by test loss (thousands)",
    "test_accuracy_at_early_stop_test": "Test accuracy there (%)",
    "val_accuracy_at_early_stop": "Validation accuracy at early stop (%)",
    "test_accuracy_at_early_stop": "Test accuracy at early stop (%)",
    "train_accuracy_at_early_stop": "Training accuracy at early stop (%)",
    "test_accuracy_at_end": "Test accuracy at the end (%)",
    "train_accuracy_at_end": "Training accuracy at the end (%)",
    "test_accuracy_at_start": "Test accuracy before training (%)",
    "error_barrier": "Error barrier (points)",
    "similarity_of_ends": "Cosine of the two trainings' weights",
    "test_accuracy_on_path": "Test accuracy on the path (%)",
    "test_accuracy": "Test accuracy (%)",
    "val_accuracy": "Validation accuracy (%)",
    "val_loss": "Validation loss",
    "initial": "Initial weight",
    "movement": "Distance moved in training",
    "growth": "Growth in magnitude in training",
    "incoming": "Share of a unit's inputs that survive",
    "outgoing": "Share of a unit's outputs that survive",
}
MOMENTS = {
    "checkpoint_1": "first checkpoint",
    "checkpoint_2": "second checkpoint",
    "end": "at the end",
}
BAR_OF = "colour bar of "  # the gid of a colour bar's axes, with the number of those it belongs to
SHADE = 0.5  # the paper's minimum to maximum lies behind its mean
DIVERGED = "a trial diverged"
EDGE = {"constant_values": 0.25}  # between the units of `receptive_fields`
UNTRAINED = "not trained at this scale yet"
INK = "#333333"  # of what a claim measures
# Percent: a network of ten classes below it has learnt nothing, and no axis makes room for it
LEARNED = 20
FAR = 2.5  # times the end of our training, above which a panel of early stops shows nothing
BEHIND = {"linewidth": 1.0, "alpha": 0.6, "zorder": 0.6, "gid": "paper"}  # the paper's mean
STYLE = {
    "figure.facecolor": "white", "savefig.facecolor": "white", "font.size": 9,
    "axes.titlesize": 9, "axes.titlelocation": "left",
    "axes.titley": 1.0,  # else each drawing measures all ticks first, to keep clear of them
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.6, "lines.linewidth": 1.6,
    "lines.markersize": 4, "legend.frameon": False, "svg.hashsalt": "lottery",
}  # fmt: skip


def panels(rows: int, columns: int, height: float = 2.7) -> tuple[Figure, list[Axes]]:
    """A figure in the book's style and its axes.

    Matplotlib keeps that style for what is drawn afterwards; in a notebook, pictures become SVG.

    Parameters
    ----------
    rows, columns : int
        How many panels, each 3.7 inches wide.
    height : float
        Of a panel, in inches.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : list of matplotlib.axes.Axes
        One a panel, row by row.

    Examples
    --------
    ::

        figure, axes = plots.panels(1, 2)
        plots.early_stop_vs_density(table, axes[0], paper="fig04")
        plots.accuracy_vs_density(table, axes[1], paper="fig04")
        plots.legend(figure, axes)
    """
    plt.rcParams.update(STYLE)
    if "inline" in plt.get_backend():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.7 * columns, height * rows), squeeze=False, layout="constrained"
    )
    return figure, list(axes.flat)


def early_stop_vs_density(
    table: pd.DataFrame, ax: Axes, metric: str = "early_stop_iteration", **how
) -> None:
    """Draw the iteration of the smallest validation loss, in thousands, over density:
    `metric_vs_density` of an early stop.

    Parameters
    ----------
    metric : str
        "early_stop_iteration", or "early_stop_iteration_test": by test loss, of lines that are
        `stopped_on_test`.
    table, ax, **how
        As in `metric_vs_density`.
    """
    metric_vs_density(table, ax, metric, **how)


def accuracy_vs_density(
    table: pd.DataFrame, ax: Axes, metric: str = "test_accuracy_at_early_stop", **how
) -> None:
    """Draw an accuracy, in percent, over density: `metric_vs_density` of an accuracy.

    Parameters
    ----------
    metric : str
        Such as "test_accuracy_at_early_stop" or "train_accuracy_at_end".
    table, ax, **how
        As in `metric_vs_density`.
    """
    metric_vs_density(table, ax, metric, **how)


def metric_vs_density(
    table: pd.DataFrame,
    ax: Axes,
    metric: str,
    paper: str | None = None,
    lines: list[str] | None = None,
    network: str = "",
    bare: str = "winning ticket",
    log: bool = True,
    ordered: bool = False,
    paired: bool = False,
    weights: dict[str, int] | None = None,
) -> None:
    """Draw a metric of each line over density, the paper's curves behind.

    A point is the mean over trials and draws, its bar their minimum to maximum. A cross marks a
    trial whose loss was no number at the end, and a thin line where our training ends if the
    paper's goes on. The paper's curves are left out at smoke scale, whose data are others.
    Densities fall from left to right. Lines that are not trained are left out, with the paper's;
    where none is, the paper's stand alone. Accuracies are drawn as low as in the paper, or lower
    where a quarter of one of our lines lies there; networks that learn nothing do not count.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`.
    ax : matplotlib.axes.Axes
        The axes to draw into, one of `panels`.
    metric : str
        Of the table, such as "test_accuracy_at_early_stop"; accuracies are drawn in percent, early
        stops in thousands of iterations.
    paper : str, optional
        The figure whose curves are drawn, such as "fig04"; None draws ours alone.
    lines : list of str, optional
        Only these; None: all.
    network : str
        Only lines whose name begins with it, and without it.
    bare : str
        What the line is called that has the network's name alone.
    log : bool
        A logarithmic axis, as in most of the paper's figures, else linear.
    ordered : bool
        Colours from dark to light, for lines that differ in one number.
    paired : bool
        Lines come in twos of one colour, the second dashed.
    weights : dict of str to int, optional
        ``{line: weights of its dense network}`` to draw weights remaining, in thousands, in place
        of density.

    Raises
    ------
    LotteryError
        For a `paper` that plots no curves.
    """

    def called(name: str) -> str:
        label = name.removeprefix(network).strip() or bare
        return label.strip("()") if label.startswith("(") else label

    factor = _factor(metric)
    known = dict.fromkeys([*table.attrs.get("lines", ()), *table.line.unique()])
    names = [name for name in known if _is_of(name, network)]
    told_apart = lines or names
    trained = {
        name for name in table.line.unique() if name in names and (not lines or name in lines)
    }
    if trained:  # what is not is told in words, by `legend`
        lines = [name for name in lines or names if name in trained]
    ax.set_title(network.strip() or LABELS.get(metric, metric))
    theirs = _papers(table, paper, metric).drop_duplicates(["line", "round"])
    theirs = theirs[theirs.line.isin(names)]
    if not trained and theirs.empty:
        _say(ax, UNTRAINED)
        return
    lowest = factor * theirs["min"].min()
    low = lowest
    for i, name in enumerate(names):
        if lines is not None and name not in lines:
            continue
        unit = weights[name] / 1000 if weights else 100
        conditions = table.attrs.get("conditions", {})
        look = _look(i, names, ordered, paired, conditions, told_apart)
        label = called(name) + _at_scale(table, name)
        behind = theirs[theirs.line == name].sort_values("density")
        _behind(
            ax,
            behind,
            unit,
            factor,
            look,
            not ordered,
            _faint(table),
            None if name in trained else label,
        )
        ours = _spread(table[(table.line == name) & (table.metric == metric)], "round", factor)
        points, ours = ours.assign(x=unit * ours.density), _with_gaps(ours, table)
        if len(ours):
            bars = _bars(ours)
            bar = ax.errorbar(
                unit * ours.density,
                ours["mean"],
                bars,
                label=label,
                elinewidth=0.8,
                capsize=1.5,
                **look,
            )
            their = behind.assign(x=unit * behind.density, mean=factor * behind["mean"])
            keep(ax, Drawn(label, bar, points, their))
            learned = ours["mean"][ours["mean"] > LEARNED]
            if learned.quantile(0.25) < lowest:
                low = min(low, learned.quantile(0.1), learned.iloc[0])  # and the line's densest
    if metric.startswith("early_stop_iteration"):
        ax.set_ylim(bottom=0)
        _mark_the_end(ax, table[table.line.isin(lines or names)], factor)
    elif len(theirs) and low - 0.3 > ax.get_ylim()[0]:
        ax.set_ylim(low - 0.3, ax.dataLim.y1 + 0.3)
    _mark_the_diverged(ax, table[table.line.isin(lines or names)], metric, factor, weights)
    _weights_axis(ax) if weights else _density_axis(ax, log)
    if paper and not weights:
        chosen = {
            each: called(each) for each in names if each in trained.intersection(lines or names)
        }
        _mark_the_claim(ax, table, metric, paper, chosen, factor)
    if not trained:
        ax.annotate(
            UNTRAINED,
            (0.5, 0.02),
            xycoords="axes fraction",
            ha="center",
            color="#666666",
            fontsize="small",
        )


def metric_vs_number(
    table: pd.DataFrame, ax: Axes, metric: str, numbers: dict[str, float], rounds: list[int]
) -> None:
    """Draw a metric of lines that differ in one number over that number, on a logarithmic axis: a
    line for each round that is there, named by its density.

    A point is the mean over trials, its bar their minimum to maximum.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`.
    ax : matplotlib.axes.Axes
        The axes to draw into, one of `panels`.
    metric : str
        As in `metric_vs_density`.
    numbers : dict of str to float
        Of each line by its name; other lines are left out.
    rounds : list of int
        Such as ``[3, 7]``.
    """
    rows = table[(table.metric == metric) & table.line.isin(numbers)]
    rows = rows.assign(x=rows.line.map(numbers).astype(float))
    ax.set(title=LABELS.get(metric, metric), xscale="log")
    none = pd.DataFrame(columns=["x", "mean"], dtype=float)
    for i, r in enumerate(r for r in rounds if (rows["round"] == r).any()):
        points = _spread(rows[rows["round"] == r], "x", _factor(metric))
        bars = _bars(points)
        label = f"{100 * points.density.iloc[0]:.1f} % of the weights"
        look = {
            "color": COLOURS[i % 8],
            "marker": MARKERS[i % 8],
            "elinewidth": 0.8,
            "capsize": 1.5,
        }
        bar = ax.errorbar(points.x, points["mean"], bars, label=label, **look)
        keep(ax, Drawn(label, bar, points, none))


def path(table: pd.DataFrame, ax: Axes, round: int, lines: list[str]) -> None:
    """Draw test accuracy on the straight line between two trainings of each network of a round.

    A point is the mean over trials and draws, its bar their minimum to maximum.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`.
    ax : matplotlib.axes.Axes
        Where to draw.
    round : int
        Which pruning round.
    lines : list of str
        Lines that show paths.
    """
    metric = "test_accuracy_on_path"
    rows = table[(table.metric == metric) & (table["round"] == round)]
    conditions = table.attrs.get("conditions", {})
    for i, name in enumerate(lines):
        points = _spread(rows[rows.line == name], "x", _factor(metric))
        if len(points):
            look = _look(i, lines, False, False, conditions, lines)
            bars = _bars(points)
            of = points.x, points["mean"], bars
            bar = ax.errorbar(*of, label=name, elinewidth=0.8, capsize=1.5, **look)
            keep(ax, Drawn(name, bar, points, points[:0]))
    if len(rows):
        ax.set_title(f"On the path, {100 * rows.density.iloc[0]:.1f} % of the weights")
    ax.set(xlabel="Place between the two trainings", ylabel=LABELS[metric])


def receptive_fields(rows: pd.DataFrame, ax: Axes, side: int = 28) -> None:
    """Draw which pixels are left of the units with the most of them, six units in a row.

    rows: of a trial's "inputs of units"; side: of the images.
    """
    if rows.empty:
        _say(ax, "not at this scale")
        return
    units = np.zeros((-(-int(rows.x.max() + 1) // side**2 // 6) * 6, side**2))
    units.flat[rows.x.astype(int)] = 1
    tiles = np.pad(units.reshape(-1, 6, side, side), ((0, 0), (0, 0), (1, 0), (1, 0)), **EDGE)
    ax.imshow(np.block([list(row) for row in tiles]), cmap="Blues", interpolation="none")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)


def learning_curves(table: pd.DataFrame, metric: str, paper: str | None = None) -> Figure:
    """The three panels of the paper's Figures 3 and 11: tickets that learn ever faster, ever more
    slowly, and beside reinits.

    They are rounds 0, 3 and 7, then 0, 7, 12, 15 and 18, then the first three beside the
    reinitialisations of rounds 3 and 7, as far as the scale has them. A curve is the mean over
    trials, its band their minimum to maximum.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`, for lines named "winning ticket" and "random reinit" that keep `metric`,
        see `Line.with_curves`.
    metric : str
        "test_accuracy" | "val_accuracy", in percent, or "val_loss".
    paper : str, optional
        The figure whose curves are drawn behind, such as "fig03"; None draws ours alone.

    Returns
    -------
    matplotlib.figure.Figure
        The legend stands in place of the fourth panel.

    Raises
    ------
    LotteryError
        For a `paper` that plots no curves.
    """
    figure, axes = panels(2, 2)
    tickets = [("winning ticket", r) for r in (0, 3, 7, 12, 15, 18)]
    reinits = [("random reinit", r) for r in (3, 7)]
    for ax, shown in zip(axes, (tickets[:3], tickets[:1] + tickets[2:], tickets[:3] + reinits)):
        curves(table, ax, shown, metric, paper)
    legend(figure, axes[:3], at=axes[3])
    return figure


def speed_and_accuracy(
    table: pd.DataFrame,
    accuracy: str,
    stop: str = "early_stop_iteration",
    columns: int = 2,
    apart: bool = False,
    **how,
) -> Figure:
    """Two panels over density, when training would stop early and an accuracy, with a legend.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`.
    accuracy : str
        The right panel's metric, such as "test_accuracy_at_early_stop", in percent.
    stop : str
        The left panel's, in thousands of iterations; see `early_stop_vs_density`.
    columns : int
        Of the legend.
    apart : bool
        The paper's curves in two panels of their own below, on the same axes: for many lines.
    **how
        What else `metric_vs_density` takes, such as ``paper="fig04"``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    LotteryError
        For a `paper` that plots no curves.

    Examples
    --------
    ::

        plan = {
            "winning ticket (iterative)": lenet.iterative(),
            "winning ticket (one-shot)": lenet.one_shot(),
        }
        table = run(plan, scale="committed")
        plots.speed_and_accuracy(table, "test_accuracy_at_early_stop", paper="fig04")
    """
    apart = apart and table.attrs["scale"] != "smoke"
    figure, axes = panels(1 + apart, 2)
    ours = how | {"paper": None} if apart else how
    early_stop_vs_density(table, axes[0], stop, **ours)
    accuracy_vs_density(table, axes[1], accuracy, **ours)
    for ax, below, metric in zip(axes, axes[2:], (stop, accuracy)):
        _papers_alone(table, below, metric, **how)
        left, right = zip(ax.get_xlim(), below.get_xlim())  # large networks are at the left
        low, high = zip(ax.get_ylim(), below.get_ylim())
        for each, name in ((ax, "Ours"), (below, "The paper")):
            title = LABELS[metric]
            each.set_title(f"{name}: {title[0].lower()}{title[1:]}")
            each.set(xlim=(max(left), min(right)), ylim=(min(low), max(high)))
    legend(figure, axes[:2], columns=columns, untrained=_untrained(table))
    return figure


def race(table: pd.DataFrame) -> Figure:
    """Four panels of a table of `play`: test accuracy before training and at early stop over
    density, and of its newest round the race over iterations and the map of connections.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `play`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = panels(2, 2)
    accuracy_vs_density(table, axes[0], "test_accuracy_at_start")
    accuracy_vs_density(table, axes[1], "test_accuracy_at_early_stop")
    ticket, newest = table.line.iloc[0], int(table["round"].max())
    none = pd.DataFrame(columns=["line", "metric", "round", "x", "mean"])
    lines = list(dict.fromkeys(table.line))
    against_dense(table, axes[2], ticket, lines, newest, "val_accuracy", none)
    rows = table[(table["round"] == newest) & (table.line == ticket)]
    axes[2].set(
        title=f"{LABELS['val_accuracy']}, {100 * rows.density.iloc[0]:.1f} % left", ylabel=""
    )
    connection_map(rows[rows.x.notna()], axes[3])
    legend(figure, axes[:3])
    return figure


def by_network(table: pd.DataFrame, metrics: list[str], networks: list[str], **how) -> Figure:
    """Panels of several metrics over density for each network, two in a row, with a legend.

    Networks of which nothing is trained are named in the legend, unless nothing is trained at all.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`.
    metrics : list of str
        A panel each, such as "early_stop_iteration" and "test_accuracy_at_early_stop".
    networks : list of str
        With what the names of a network's lines begin, such as "Conv-2".
    **how
        What else `metric_vs_density` takes, such as ``paper="fig05"``.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    ::

        plan = {"Conv-2": conv2.iterative(), "Conv-2 reinit": conv2.iterative().reinitialised()}
        table = run(plan, scale="committed")
        metrics = ["early_stop_iteration", "test_accuracy_at_early_stop"]
        plots.by_network(table, metrics, ["Conv-2"], paper="fig05")
    """
    trained = set(table.line.unique())
    shown = [n for n in networks if any(_is_of(line, n) for line in trained)] or networks
    figure, axes = panels((len(shown) * len(metrics) + 1) // 2, 2)
    wanted = [(network, metric) for network in shown for metric in metrics]
    for ax, (network, metric) in zip(axes, wanted):
        metric_vs_density(table, ax, metric, network=network, **how)
        if len(metrics) == 1:
            ax.set(title=network, ylabel=LABELS[metric])
        else:
            ax.set_title(f"{network}: {LABELS[metric][0].lower()}{LABELS[metric][1:]}")
    lacking = [network for network in networks if network not in shown]
    named = [line for line in _untrained(table) if any(_is_of(line, n) for n in shown)]
    at = axes[-1] if len(wanted) % 2 else None
    legend(figure, axes[: len(wanted)], at=at, untrained=lacking + named)
    return figure


def sweep(
    table: pd.DataFrame,
    accuracy: str,
    paper: str,
    networks: list[str] | None = None,
    of: str = "",
    stop: str = "early_stop_iteration",
) -> Figure:
    """Maps of early stop and accuracy: a row for each line of a sweep, from left to right its
    densities; ours beside the paper's in the same colours, bright where it is good, and below both
    ours less the paper's, red where ours is worse.

    The scale of colours ends at the tenth that is worst, so that settings that fail do not take all
    of it; where our networks are narrower than the paper's, each side has a scale of its own, and
    no differences are drawn. Frames in ours show what a claim compares. Networks of which nothing
    is trained are left out, unless nothing is trained at all.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`.
    accuracy : str
        Such as "val_accuracy_at_early_stop", in percent.
    paper : str
        The figure whose numbers stand at the right, such as "fig26"; at smoke scale, whose data are
        others, they are left out.
    networks : list of str, optional
        With what the names of a network's lines begin; None: the table has one network.
    of : str
        What differs from line to line, to stand at the axis, such as "Learning rate".
    stop : str
        The metric of the upper maps, in thousands of iterations.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    LotteryError
        For a `paper` that plots no curves.
    """
    networks, trained = networks or [""], set(table.line.unique())
    shown = [n for n in networks if any(_is_of(line, n) for line in trained)] or networks
    columns = 1 if table.attrs["scale"] == "smoke" else 2
    known = list(dict.fromkeys([*table.attrs.get("lines", ()), *table.line.unique()]))
    most = max(sum(_is_of(name, network) for name in known) for network in shown)
    compared = columns == 2 and len(shown) == 1 and not table.attrs.get("narrower")
    rows_of_panels = 2 * len(shown) + compared
    figure, axes = panels(rows_of_panels, columns, height=1.1 + 0.2 * most)
    maps = [(network, metric) for network in shown for metric in (stop, accuracy)]
    for row, (network, metric) in enumerate(maps):
        names = [name for name in known if _is_of(name, network)]
        factor = 1e-3 if metric == stop else 100
        theirs = _papers(table, paper, metric).drop_duplicates(["line", "round"])
        ours = table[table.metric == metric].groupby(["line", "round"], as_index=False)
        sources = {
            "ours": ours.agg(density=("density", "mean"), value=("value", "mean")),
            "the paper": theirs.assign(value=theirs["mean"]),
        }
        numbers = {
            source: factor * rows.value[rows.line.isin(names)].astype(float)
            for source, rows in sources.items()
        }
        if not table.attrs.get("narrower"):
            numbers = dict.fromkeys(numbers, pd.concat(numbers.values()))
        stops = metric.startswith("early_stop_iteration")
        looks = {
            source: ("viridis_r" if stops else "viridis", *_range(numbers[source], metric))
            for source in sources
        }
        places = dict(zip(list(sources)[:columns], axes[row * columns :]))
        if compared:
            both = sources["ours"].merge(sources["the paper"], on=["line", "round"])
            less = (both.value_x - both.value_y).astype(float)
            far = factor * less.abs().quantile(0.7)
            sources["ours − the paper's"] = both.assign(density=both.density_x, value=less)
            looks["ours − the paper's"] = ("RdBu_r" if stops else "RdBu", -far, far)
            places["ours − the paper's"] = axes[2 * columns + row]
        for source, ax in places.items():
            rows = sources[source]
            rows = rows.assign(value=factor * rows.value.astype(float))
            ends = "both" if "−" in source else "max" if stops else "min"
            _map(ax, rows, names, looks[source], ends, source != "the paper")
            what = LABELS[metric].replace(" at early stop", "").replace("-stop iteration", " stop")
            ax.set_title(f"{network or what}, {source}" + f": {what.lower()}" * bool(network))
            ax.set_yticks(
                [i + 0.5 for i in range(len(names))],
                [name.removeprefix(network).strip() for name in names],
            )
            ax.set_ylabel(of)
            if source == "ours":
                _frame_the_claim(ax, table, metric, paper, names)
        alike = list(places.values())
        for ax in alike:
            ax.set_xlim(110, min(each.get_xlim()[1] for each in alike))
    return figure


def _range(values: pd.Series, metric: str) -> tuple[float, float]:
    """From the best to where the worst tenth begins, ascending; networks that learn nothing do not
    count."""
    if metric.startswith("early_stop_iteration"):
        return values.min(), values.quantile(0.9)
    learned = values[values > LEARNED]
    return (learned.quantile(0.1), learned.max()) if len(learned) else (0, LEARNED)


def _is_of(line: str, network: str) -> bool:
    """Whether a line's name begins with a network's; all do with ""."""
    return not network or line == network or line.startswith(f"{network} ")


def _map(
    ax: Axes,
    rows: pd.DataFrame,
    names: list[str],
    look: tuple[str, float, float],
    ends: str,
    ours: bool,
) -> None:
    """A row of cells for each line, as wide as the densities lie apart.

    look: colours, and the numbers at which they begin and end; ends: which of them have numbers
    beyond; ours: or the paper's.
    """
    colours, low, high = look
    cmap, norm = plt.get_cmap(colours), Normalize(low, high)
    for i, name in enumerate(names):
        mine = rows[rows.line == name].dropna(subset="density").sort_values("density")
        if len(mine) < 2:
            ax.text(0.02, i + 0.5, "not trained yet", transform=ax.get_yaxis_transform(),
                    va="center", fontsize=7, color="#666666")  # fmt: skip
            continue
        cells = ax.pcolormesh(
            100 * _edges(mine.density.to_numpy(float)),
            [i, i + 1],
            mine.value.to_numpy(float)[None],
            cmap=cmap,
            norm=norm,
            rasterized=False,
        )
        told = mine.assign(x=100 * mine.density, mean=mine.value, trained=1)
        keep(ax, Drawn(name, cells, *((told, told[:0]) if ours else (told[:0], told))))
    ax.set_ylim(len(names), 0)
    ax.grid(False)
    _density_axis(ax, log=True)
    number = ax.figure.axes.index(ax)
    bar = ax.figure.colorbar(ScalarMappable(norm, cmap), ax=ax, extend=ends)
    bar.ax.set_gid(f"{BAR_OF}{number}")


def _edges(densities: np.ndarray) -> np.ndarray:
    """Where the cells of two ascending densities or more begin and end: half-way between them on a
    logarithmic axis."""
    at = np.log(densities)
    middles = (at[1:] + at[:-1]) / 2
    return np.exp([2 * at[0] - middles[0], *middles, 2 * at[-1] - middles[-1]])


def accuracy_at_checkpoints(table: pd.DataFrame, accuracy: str, **how) -> Figure:
    """Panels of an accuracy over density, at two iterations before the end and at the end, with a
    legend.

    Where our networks are narrower than the paper's, too far from its for one axis, the paper's
    stand in panels of their own at the right.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`, for recipes with two `checkpoints`.
    accuracy : str
        "test_accuracy" | "val_accuracy", in percent.
    **how
        What else `metric_vs_density` takes, such as ``paper="fig07"``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    apart = (
        bool(table.attrs.get("narrower")) and how.get("paper") and table.attrs["scale"] != "smoke"
    )
    figure, axes = panels(3 if apart else 2, 2)
    ours = axes[:5:2] if apart else axes[:3]
    for i, (ax, moment) in enumerate(zip(ours, ("checkpoint_1", "checkpoint_2", "end"))):
        metric = f"{accuracy}_at_{moment}"
        accuracy_vs_density(table, ax, metric, **how | {"paper": None} if apart else how)
        reached = table.iteration[table.metric == metric]
        if len(reached):
            name = f"Ours: {LABELS[accuracy].lower()}" if apart else LABELS[accuracy]
            ax.set_title(f"{name} after {reached.max():,} iterations")
        if apart:
            lines = {line: line for line in table.line.unique()}
            _mark_the_claim(ax, table, metric, how["paper"], lines, _factor(metric))
            _papers_alone(table, axes[2 * i + 1], metric, **how)
            axes[2 * i + 1].set_title(f"The paper: {LABELS[accuracy].lower()}, {MOMENTS[moment]}")
    legend(figure, ours, at=None if apart else axes[3], untrained=_untrained(table))
    return figure


def _papers_alone(table: pd.DataFrame, ax: Axes, metric: str, paper: str, **how) -> None:
    """Draw the paper's curves of the lines that we trained, in the looks that ours have."""
    names, weights, factor = list(table.attrs["lines"]), how.get("weights"), _factor(metric)
    theirs = _papers(table, paper, metric).drop_duplicates(["line", "round"])
    for i, name in enumerate(names):
        points = theirs[(theirs.line == name)].sort_values("density")
        if name not in set(table.line.unique()) or points.empty:
            continue
        conditions = table.attrs.get("conditions", {})
        ordered, paired = how.get("ordered", False), how.get("paired", False)
        look = _look(i, names, ordered, paired, conditions, names)
        x = points.density * (weights[name] / 1000 if weights else 100)
        ax.plot(x, factor * points["mean"], **look | {"markersize": 2.5})
        low, high = factor * points["min"], factor * points["max"]
        ax.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0)
    _weights_axis(ax) if weights else _density_axis(ax, log=True)


def distributions(
    table: pd.DataFrame, shown: list[tuple[str | None, int, list[str]]], paper: str | None = None
) -> Figure:
    """Panels of how a quantity is distributed over a layer, two in a row, and a legend.

    A line is the mean over trials of each bin's probability density, its band their minimum to
    maximum. Where one bin stands out far above all others, the panel ends below its top and says
    how high it is.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`, for lines that show a distribution, see `Line.distribution`.
    shown : list of tuple
        (title, round, lines) of each panel. The title is a layer, which the names of the lines then
        begin with; None gives the density of the network.
    paper : str, optional
        The figure whose curves are drawn behind, such as "fig19"; None draws ours alone.

    Returns
    -------
    matplotlib.figure.Figure
        The legend stands in place of the last panel where their number is odd, else below. A round
        that the scale lacks has words in place of its panel.

    Raises
    ------
    LotteryError
        For a `paper` that plots no curves.
    """
    figure, axes = panels((len(shown) + 1) // 2, 2)
    for ax, (title, r, lines) in zip(axes, shown):
        distribution(table, ax, lines, r, paper, title)
    legend(figure, axes[: len(shown)], at=axes[-1] if len(shown) % 2 else None)
    return figure


def distribution(
    table: pd.DataFrame,
    ax: Axes,
    shown: list[str],
    r: int,
    paper: str | None = None,
    title: str | None = None,
) -> None:
    """Draw how a quantity is distributed over a layer at round `r`, a line of `shown` each, the
    paper's curves behind.

    The mean over trials of each bin's probability density, with a band from minimum to maximum.
    title: a layer, which the names of the lines then begin with; None gives the density of the
    network.
    """
    rows = table[table.line.isin(shown) & (table["round"] == r) & table.x.notna()]
    if rows.empty:
        _say(ax, f"round {r}: not at this scale")
        return
    heights = []
    for name, colour in zip(shown, cycle(COLOURS)):
        mine = rows[rows.line == name]
        if mine.empty:
            continue
        metric = mine.metric.iloc[0]
        ours = mine.groupby("x", as_index=False).value.agg(["mean", "min", "max"])
        filled = ours.index[ours["max"] > 0]
        ours = ours[max(filled[0] - 1, 0) : filled[-1] + 2]
        theirs = _papers(table, paper, metric)
        theirs = theirs[(theirs.line == name) & (theirs["round"] == r)]
        if len(theirs):
            ax.plot(theirs.x, theirs["mean"], color=colour, **BEHIND)
        [line] = ax.step(
            ours.x,
            ours["mean"],
            where="mid",
            color=colour,
            label=name.split(", ")[-1] + _at_scale(table, name),
        )
        keep(ax, Drawn(line.get_label(), line, ours.assign(trained=mine.node.nunique()), theirs))
        ax.fill_between(
            ours.x, ours["min"], ours["max"], step="mid", color=colour, alpha=0.15, linewidth=0
        )
        heights += [*ours["mean"]]
    ax.set(xlabel=LABELS[metric.split()[0]], ylabel="Probability density")
    ax.set_ylim(bottom=0)
    *_, second, highest = sorted(heights)
    if highest > 2 * second:  # a spike, which would flatten all else
        ax.set_ylim(top=1.6 * second)
        ax.annotate(
            f"up to {highest:.0f}",
            (1, 1),
            xycoords="axes fraction",
            ha="right",
            va="top",
            fontsize=7,
            color="#666666",
        )
    ax.set_title(title or f"{100 * rows.density.iloc[0]:.1f} % of the weights remain")


def curves(
    table: pd.DataFrame,
    ax: Axes,
    shown: list[tuple[str, int]],
    metric: str = "test_accuracy",
    paper: str | None = None,
) -> None:
    """Draw learning curves, one for each (line, round) in `shown`, as mean and band from minimum to
    maximum.

    A round has one colour in all panels of a figure, solid for tickets and dashed for their
    reinitialisations.
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
        label = (
            f"{100 * rows.density.iloc[0]:.1f} %"
            + (" reinit" if line == "random reinit" else "")
            + _at_scale(table, line)
        )
        their = _until(theirs, line, r, ours.iteration.max())
        dash = DASHED if line == "random reinit" else "-"
        their = their.assign(x=their.x / 1000, mean=factor * their["mean"])
        ax.plot(their.x, their["mean"], color=colour, linestyle=dash, **BEHIND)
        _curve(ax, ours, label, colour, dash, their)
        bends.append(ours["mean"].iloc[len(ours) // 8])
    if bends:  # the fall from the untrained network's value is left out
        ax.set_ylim(0.5 * min(bends), 1.3 * max(bends)) if metric.endswith("loss") else ax.set_ylim(
            bottom=min(bends)
        )
    ax.set_xlabel("Iteration (thousands)")
    ax.set_title(LABELS.get(metric, metric))


def against_dense(
    table: pd.DataFrame,
    ax: Axes,
    ticket: str,
    lines: list[str],
    r: int,
    metric: str,
    theirs: pd.DataFrame,
) -> None:
    """Draw the learning curves of `lines` at round `r` beside those of the dense network of
    `ticket`, on axes that are the same for every round; behind them those of `theirs`, the paper's
    points."""
    factor = 1 if metric.endswith("loss") else 100
    table = table[table.line.isin(lines) & (table.metric == metric)]
    theirs = theirs[theirs.metric == metric].drop_duplicates(["line", "round", "x"])
    styles = [(ticket, 0, "dense network", "#555555", "-")]
    styles += [
        (line, r, table.control[table.line == line].iloc[0], *look)
        for line, look in zip(lines, cycle(zip(COLOURS, DASHES)))
        if r
    ]
    for line, round_, label, colour, dash in styles:
        ours = _spread(
            table[(table.line == line) & (table["round"] == round_)], "iteration", factor
        )
        their = _until(theirs, line, round_, ours.iteration.max())
        their = their.assign(x=their.x / 1000, mean=factor * their["mean"])
        if len(their):
            ax.plot(their.x, their["mean"], color=colour, linestyle=dash, **BEHIND)
        _curve(ax, ours, label, colour, dash, their)
    late = factor * table.value[table.iteration > table.iteration.max() / 8]
    margin = 0.05 * (late.max() - late.min())
    ax.set_ylim(late.min() - margin, late.max() + margin)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set(xlabel="Iteration (thousands)", ylabel=LABELS[metric])


def _until(theirs: pd.DataFrame, line: str, r: int, last: int) -> pd.DataFrame:
    """The paper's points of a line's learning curve at round `r`, up to our last iteration."""
    chosen = (theirs.line == line) & (theirs["round"] == r) & (theirs.x <= last)
    return theirs[chosen].sort_values("x")


def _curve(
    ax: Axes, ours: pd.DataFrame, label: str, colour: str, dash, theirs: pd.DataFrame
) -> None:
    """Draw one of our learning curves: the mean and, of several trainings, a band from minimum to
    maximum; ours: of `_spread` by iteration; theirs: the paper's, as it is drawn."""
    if ours.empty:
        return
    ours = ours.assign(x=ours.iteration / 1000)
    [line] = ax.plot(ours.x, ours["mean"], color=colour, linestyle=dash, label=label)
    if ours.trained.max() > 1:
        ax.fill_between(ours.x, ours["min"], ours["max"], color=colour, alpha=0.15, linewidth=0)
    keep(ax, Drawn(label, line, ours, theirs))


def connection_map(rows: pd.DataFrame, ax: Axes) -> None:
    """Draw which share of the first layer's units each pixel still reaches, mean over trials, in
    colours that mean the same at every round; rows: of "map of connections"."""
    share = rows.groupby("x").value.mean().sort_index()
    side = round(len(share) ** 0.5)
    picture = ax.imshow(
        100 * share.to_numpy().reshape(side, side),
        cmap="viridis",
        norm=PowerNorm(0.5, vmin=0, vmax=100),  # a few percent are to be told from none
        interpolation="none",
    )
    ax.set(xticks=[], yticks=[], title="What is left of each pixel’s connections")
    ax.grid(False)
    ax.figure.colorbar(picture, ax=ax, shrink=0.9, ticks=[0, 5, 20, 50, 100], label="%")


def network(weights: list[np.ndarray]) -> Figure:
    """Draw a small network: a line a weight that is not zero, as wide as the weight is large, in a
    colour for its sign.

    weights: of each layer, (outputs, inputs), about -1 to 1.
    """
    plt.rcParams.update(STYLE)
    figure, ax = plt.subplots(figsize=(2.2, 1.6), layout="constrained")
    rows = [weights[0].shape[1], *(len(layer) for layer in weights)]
    places = [np.linspace(-1, 1, n) * (n - 1) / max(rows) if n > 1 else np.zeros(1) for n in rows]
    for x, (layer, left, right) in enumerate(zip(weights, places, places[1:])):
        for (j, i), weight in np.ndenumerate(layer):
            if weight:
                colour = COLOURS[0] if weight > 0 else COLOURS[1]
                ax.plot(
                    (x, x + 1),
                    (left[i], right[j]),
                    color=colour,
                    linewidth=3 * abs(weight),
                    solid_capstyle="butt",
                    zorder=1,
                )
    for x, place in enumerate(places):
        ax.scatter(
            np.full(len(place), x), place, s=60, color="white", edgecolors="#444444", zorder=2
        )
    ax.set_axis_off()
    return figure


def workers(hours: dict[str, dict]) -> Figure:
    """How long the paper's scale takes over the number of workers; hours: of each line, as
    `simulation.hours` returns them."""
    figure, [ax] = panels(1, 1, height=3.4)
    figure.set_size_inches(6, 3.4)
    for i, (name, simulated) in enumerate(hours.items()):
        counts = [int(count) for count in simulated["on"]]
        ax.plot(
            counts, list(simulated["on"].values()), label=name, color=COLOURS[i], marker=MARKERS[i]
        )
        ax.plot(
            counts,
            [simulated["work"] / count for count in counts],
            color=COLOURS[i],
            linestyle=":",
            linewidth=1,
        )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(counts, [str(count) for count in counts])
    spans = {"1 hour": 1, "1 day": 24, "1 month": 730, "1 year": 8760, "10 years": 87600}
    ax.set_yticks(list(spans.values()), list(spans))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("Workers")
    ax.set_title("Time to train the paper's scale (dotted: work shared evenly)")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def lighter(svg: bytes) -> bytes:
    """A drawing with coordinates to a hundredth of a point, and without what tells who drew it and
    how its text is set out, at half its weight."""
    drawing = re.sub(rb"<metadata>.*?</metadata>", b"", svg[svg.index(b"<svg") :], flags=re.S)
    return re.sub(
        rb' (?:d|x|y)="[^"]*"',
        lambda places: re.sub(rb"(\.\d\d)\d+", rb"\1", places[0]),
        b" ".join(drawing.split()),
    )


def legend(
    figure: Figure,
    axes: list[Axes],
    at: Axes | None = None,
    columns: int = 2,
    untrained: list[str] | None = None,
    listed: bool = False,
) -> None:
    """Name all lines in `axes`, beside each if every panel has room for that, else in a legend.

    The legend says besides what is drawn behind them and n, how many networks were trained for each
    point of a line: once where all lines have as many.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Of `panels`.
    axes : list of matplotlib.axes.Axes
        Those whose lines it names, each once.
    at : matplotlib.axes.Axes, optional
        It stands in place of these axes; None: below the figure.
    columns : int
        Of the legend below the figure.
    untrained : list of str, optional
        What is to be named as not trained yet.
    listed : bool
        List all lines in any case: in frames of a slider, names beside lines would move.
    """

    def put(listed: bool):
        of_a_panel = _key(axes, listed, untrained or [], width=44)
        if at is not None:
            return at.legend(**of_a_panel, loc="center left")
        keep_key(figure, of_a_panel)
        key = _key(axes, listed, untrained or [], width=80)
        return figure.legend(**key, loc="outside lower center", ncols=columns)

    if at is not None:
        at.set_axis_off()
    key = put(listed)
    if listed:
        return
    figure.draw_without_rendering()  # so that panels have their places
    beside = [labels.name_lines(ax, {each.name: each.line for each in drawn(ax)}) for ax in axes]
    if None in beside:
        for each in (key, *chain.from_iterable(filter(None, beside))):
            each.remove()
        tall = put(listed=True)
        if at is None:  # the panels keep their height
            width, height = figure.get_size_inches()
            figure.set_size_inches(width, height + tall.get_window_extent().height / figure.dpi)
        figure.draw_without_rendering()
    for ax in axes:
        labels.place_mark(ax)


def _untrained(table: pd.DataFrame) -> list[str]:
    """The lines that are not trained yet, unless none is trained at all."""
    trained = set(table.line.unique())
    return [line for line in table.attrs["lines"] if trained and line not in trained]


def _key(axes: list[Axes], listed: bool, untrained: list[str], width: int) -> dict:
    """What a legend of these axes says, as arguments of `Axes.legend`: n, the networks trained for
    each point; what is not trained; our lines if they are `listed`; those of the paper alone; what
    the paper's look like if any is drawn. width: of its lines of words, in letters."""
    lines = [line for ax in axes for line in drawn(ax)]
    ours: dict[str, Artist] = {}
    trained: dict[str, list[int]] = {}
    for line in lines:
        ours.setdefault(line.name, line.artist)
        trained.setdefault(line.name, []).extend(line.points.trained)
    entries: dict[str, Artist] = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels()):
            if name not in ours:
                entries.setdefault(name, handle)
    n = {
        name: str(max(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        for name, counts in trained.items()
    }
    alike = len(set(n.values())) == 1
    title = [f"n = {next(iter(n.values()))}"] if alike else []
    if listed:
        told = {name: "" if alike else f" (n = {n[name]})" for name in ours}
        entries = {f"{name}{told[name]}": handle for name, handle in ours.items()} | entries
    elif not alike and n:
        title = [fill(f"n: {', '.join(f'{name} {count}' for name, count in n.items())}", width)]
    if untrained:
        title.append(fill(f"Not trained yet: {', '.join(untrained)}", width))
    behind = [line for ax in axes for line in ax.lines if line.get_gid() == BEHIND["gid"]]
    if behind:
        full = ", full width" if any(line.get_alpha() < BEHIND["alpha"] for line in behind) else ""
        banded = any(shade.get_zorder() == SHADE for ax in axes for shade in ax.collections)
        shaded = " (shaded: its minimum to maximum)"
        entries[fill(f"thin: the paper{full}{shaded if banded else ''}", width)] = Line2D(
            [], [], color="#777777", **BEHIND
        )
    entries = entries or {"": Line2D([], [], linestyle="none")}  # no legend is of a title alone
    key = {"handles": list(entries.values()), "labels": list(entries)}
    if title:
        key |= {"title": "\n".join(title), "title_fontproperties": {"size": "medium"}}
    return key | {"alignment": "left"}


def _factor(metric: str) -> float:
    """From a metric to the units that pictures have: thousands of iterations, percent."""
    if metric.startswith("early_stop_iteration"):
        return 1e-3
    return 1 if "inputs" in metric or "similarity" in metric else 100


def _spread(rows: pd.DataFrame, by: str, factor: float) -> pd.DataFrame:
    """Mean, min and max of a line's values at each round or iteration, over trials and draws."""
    groups = rows.groupby(by)
    value = groups.value
    spread = pd.DataFrame(
        {
            "density": groups.density.mean(),
            "mean": factor * value.mean(),
            "min": factor * value.min(),
            "max": factor * value.max(),
            "trained": groups.node.nunique(),
        }
    ).reset_index()
    return spread.sort_values("density", ascending=False) if by == "round" else spread


def _bars(spread: pd.DataFrame) -> list[pd.Series]:
    """From the mean down to the lowest and up to the highest; the mean of equal numbers may lie a
    rounding beside them."""
    down, up = spread["mean"] - spread["min"], spread["max"] - spread["mean"]
    return [down.clip(lower=0), up.clip(lower=0)]


def _with_gaps(ours: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """A line's points by round with a row of no number where rounds that others have are missing
    between two of its own, for no line leads across what is not trained."""
    rounds = ours["round"].to_numpy()
    if len(rounds) < 3:
        return ours
    steps = np.diff(rounds)
    known = table["round"].unique()
    breaks = [
        (a + b) / 2
        for a, b, step in zip(rounds, rounds[1:], steps)
        if step > steps.min() and ((known > a) & (known < b)).any()
    ]
    gaps = pd.DataFrame({"round": breaks}, dtype=float)
    return pd.concat([ours, gaps]).sort_values("round", ignore_index=True)


def _papers(table: pd.DataFrame, figure: str | None, metric: str) -> pd.DataFrame:
    """The paper's points of a metric; none at smoke scale, whose data are others."""
    if figure is None or table.attrs["scale"] == "smoke":
        return pd.DataFrame(columns=["line", "round", "x", "density", "mean", "min", "max"])
    points = papers.curves(figure)
    return points[points.metric == metric]


def _at_scale(table: pd.DataFrame, line: str) -> str:
    """What to add to a line's name: its scale, where a figure has lines at several."""
    scales = table.drop_duplicates("line").set_index("line").scale
    return f" ({scales[line]} scale)" if line in scales and scales.nunique() > 1 else ""


def _say(ax: Axes, text: str) -> None:
    """Words in place of a picture."""
    ax.set(xticks=[], yticks=[], frame_on=False)
    ax.text(0.5, 0.5, text, ha="center", color="#666666")


def _look(
    i: int,
    names: list[str],
    ordered: bool,
    paired: bool,
    conditions: dict[str, tuple[str, str]],
    drawn: list[str],
) -> dict:
    """Colour, marker and dash of the i-th line of a table: by its condition, where those tell the
    lines apart that a panel draws."""
    of = [conditions.get(name) for name in drawn]
    if not ordered and len(set(of)) == len(of) and set(of) <= set(CONDITIONS):
        return dict(zip(("color", "marker", "linestyle"), CONDITIONS[conditions[names[i]]]))
    if paired:
        face = {"markerfacecolor": "white", "linestyle": DASHES[1]} if i % 2 else {"linestyle": "-"}
        return {"color": COLOURS[i // 2 % 8], "marker": MARKERS[i // 2 % 8], **face}
    if ordered:
        return {
            "color": plt.get_cmap("viridis")(0.92 * i / max(len(names) - 1, 1)),
            "marker": MARKERS[i % 8],
            "markersize": 3,
            "linewidth": 1.2,
        }
    return {"color": COLOURS[i % 8], "marker": MARKERS[i % 8], "linestyle": DASHES[i % 8]}


def _behind(
    ax: Axes,
    points: pd.DataFrame,
    unit: float,
    factor: float,
    look: dict,
    shaded: bool,
    faint: float,
    label: str | None,
) -> None:
    if points.empty:
        return
    at, colour = unit * points.density, look["color"]
    if shaded:
        ax.fill_between(
            at,
            factor * points["min"],
            factor * points["max"],
            color=colour,
            alpha=0.13 * faint,
            linewidth=0,
            zorder=SHADE,
        )
    ax.plot(
        at,
        factor * points["mean"],
        color=colour,
        linestyle=look.get("linestyle", "-"),
        label=label,
        **BEHIND | {"alpha": BEHIND["alpha"] * faint},
    )


def _density_axis(ax: Axes, log: bool) -> None:
    ax.set_xlabel("Weights remaining (%)")
    if log:
        ax.set_xscale("log")
        low = 0.93 * min(ax.dataLim.x0, 100)
        ax.set_xlim(110, low)
        ax.xaxis.set_minor_locator(NullLocator())
        ticks = [tick for tick in TICKS if tick >= low]
        ax.set_xticks(ticks if len(ticks) > 2 else [100, 80, 60, 50, 40])
        ax.set_xlim(110, low)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ax.set_xlim(103, 0)
    ax.yaxis.set_major_locator(MaxNLocator(6))


def _faint(table: pd.DataFrame) -> float:
    """How much of its ink the paper's curve keeps: less where our networks are narrower than the
    paper's."""
    return 0.5 if table.attrs.get("narrower") else 1.0


def _weights_axis(ax: Axes) -> None:
    ax.set_xlabel("Weights remaining (thousands)")
    ax.set_xscale("log")
    ax.set_xlim(1.2 * ax.dataLim.x1, 0.93 * ax.dataLim.x0)
    ax.xaxis.set_major_locator(
        LogLocator(subs=(1, 3)) if ax.dataLim.x1 > 10 * ax.dataLim.x0 else MaxNLocator(4)
    )
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_locator(MaxNLocator(6))


def _mark_the_diverged(
    ax: Axes, table: pd.DataFrame, metric: str, factor: float, weights: dict[str, int] | None
) -> None:
    """A cross where a trial's loss was no number at the end, at the edge of the panel if the mean
    lies beyond it."""
    failed = table[(table.metric == "diverged") & (table.value > 0)]
    for (name, r), rows in failed.groupby(["line", "round"]):
        value = (
            table.value[
                (table.line == name) & (table["round"] == r) & (table.metric == metric)
            ].mean()
            * factor
        )
        low, high = ax.get_ylim()
        at = rows.density.iloc[0] * (weights[name] / 1000 if weights else 100)
        ax.plot(
            at,
            min(max(value, low), high),
            "x",
            color="#B00020",
            markersize=6,
            clip_on=False,
            zorder=5,
            label=DIVERGED,
        )


def _mark_the_claim(
    ax: Axes, table: pd.DataFrame, metric: str, figure: str, lines: dict[str, str], factor: float
) -> None:
    """The first of the figure's claims that compares two of the panel's points, where it happens:
    an arrow from what it compares with, our number, and what that is; lines: what the panel calls
    them."""
    for row, of, against in _comparisons(table, metric, figure, set(lines)):
        ends = [_point(table, place, factor) for place in (against, of)]
        if None not in ends and of.get("density") != 1:
            if against.get("density") == 1:
                than = "dense"
            elif against["line"] == of["line"]:
                than = f"{ends[0][0]:.3g} %"
            else:  # "reinit" beside its ticket, not the rate once more
                than = lines[against["line"]].removeprefix(f"{lines[of['line']]} ")
            said = f"{row.claim.show(row.ours)} at {ends[1][0]:.3g} %\nagainst {than}"
            _draw_arrow(ax, *ends, said)
            return


def _draw_arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], said: str) -> None:
    (from_x, from_y), (x, y) = start, end
    if from_x != x:
        ax.hlines(from_y, *sorted((from_x, x)), color=INK, linewidth=0.8, linestyle=":", zorder=4)
    head = {"marker": "^" if y > from_y else "v", "markersize": 4, "markevery": [1]}
    ax.plot([x, x], [from_y, y], color=INK, linewidth=1.0, zorder=5, gid=labels.MARK, **head)
    number = ax.annotate(
        said, (x, (y + from_y) / 2), (0, 0), ha="center",
        va="center", textcoords="offset points", fontsize=labels.SIZE, fontweight="bold",
        color=INK, zorder=6, gid=labels.MARK, annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
    )  # fmt: skip
    number.set_in_layout(False)  # `labels.place_mark` moves it into the panel
    low, high = ax.get_ylim()
    edge = 0.03 * (high - low)  # the panel shows both ends
    ax.set_ylim(low and min(low, y - edge, from_y - edge), max(high, y + edge, from_y + edge))


def _frame_the_claim(
    ax: Axes, table: pd.DataFrame, metric: str, figure: str, names: list[str]
) -> None:
    """The first of the figure's claims that compares two of a map's rows, where it happens: a frame
    around what it is about, with our number, a dashed one around what it compares with."""
    found = next(_comparisons(table, metric, figure, set(names)), None)
    if found is None:
        return
    row, of, against = found
    for place, dashes in ((against, "--"), (of, "-")):
        rows = table[(table.line == place["line"]) & (table.metric == metric)]
        densities = np.sort(rows.density.dropna().unique())
        inside = claims.at_density(densities, place.get("density", [0, 1]))
        edges, cells = 100 * _edges(densities), np.flatnonzero(inside)
        left, right, y = edges[cells[0]], edges[cells[-1] + 1], names.index(place["line"])
        frame = Rectangle((left, y), right - left, 1, fill=False, zorder=5, clip_on=False)
        frame.set(edgecolor=INK, linewidth=1.6, linestyle=dashes)
        ax.add_patch(frame)
    ax.text(1, y + 0.5, row.claim.show(row.ours), transform=ax.get_yaxis_transform(), ha="right",
            va="center", fontsize=labels.SIZE, fontweight="bold", color=INK, zorder=6,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1})  # fmt: skip


def _comparisons(
    table: pd.DataFrame, metric: str, figure: str, lines: set[str]
) -> Iterator[tuple[Any, dict, dict]]:
    """Of the figure's tested claims those that compare two places of these lines in a metric: its
    row of `claims.verdicts`, the place it is about, and the one it compares with."""
    for row in claims.verdicts(figure, table).itertuples():
        of, against = row.claim.places
        compares = row.claim.no_effect is not None and row.outcome != "not tested"
        shown = {of["metric"], against["metric"]} == {metric}
        if compares and shown and {of["line"], against["line"]} <= lines:
            yield row, of, against


def _point(table: pd.DataFrame, place: dict, factor: float) -> tuple[float, float] | None:
    """Where a claim's place is drawn; None where it is no single round of a line."""
    rows = table[(table.line == place["line"]) & (table.metric == place["metric"])]
    density = place.get("density")
    if not isinstance(density, int | float) or rows.empty:
        return None
    there = rows["round"][claims.at_density(rows.density.to_numpy(float), density)]
    if there.empty:
        return None
    rows = rows[rows["round"] == there.iloc[0]]
    return 100 * rows.density.iloc[0], factor * rows.value.mean()


def _mark_the_end(ax: Axes, table: pd.DataFrame, factor: float) -> None:
    """A line where our training ends, if the paper's goes on: no early stop of ours can lie above
    it. Of what lies far above it, which would press ours flat, the panel says how far it goes."""
    iterations = table.iteration[table.metric == "test_accuracy_at_end"]
    if iterations.empty or iterations.max() * factor >= ax.dataLim.y1:
        return
    ends, highest = iterations.max() * factor, ax.dataLim.y1
    ax.axhline(ends, color="#999999", linewidth=0.8, zorder=0.4)
    told = [("our training ends", ends, "bottom")]
    if highest > FAR * ends:
        ax.set_ylim(top=FAR * ends)
        told.append((f"the paper: up to {highest:.2g}", FAR * ends, "top"))
    for said, height, side in told:
        ax.annotate(
            said,
            (1, height),
            xycoords=("axes fraction", "data"),
            ha="right",
            va=side,
            fontsize=7,
            color="#666666",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.5},
        )
