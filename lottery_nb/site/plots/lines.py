"""A metric over density, or over another number: a line for each condition, the paper's curve
behind it."""

import pandas as pd
from matplotlib.axes import Axes

from ..readings import Drawn, keep
from .marks import mark_the_claim, mark_the_diverged, mark_the_end
from .points import (
    LEARNED,
    at_scale,
    bars_of,
    factor_of,
    in_units,
    lines_of,
    papers_of,
    spread_of,
    with_gaps,
)
from .style import (
    BEHIND,
    COLOURS,
    LABELS,
    MARKERS,
    SHADE,
    UNTRAINED,
    density_axis,
    look_of,
    say,
    weights_axis,
)


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
    factor = factor_of(metric)
    names = lines_of(table, network)
    of_the_panel = lines or names
    trained = set(of_the_panel) & set(names) & set(table.line.unique())
    # What is not trained is told in words, by `legend`.
    shown = [name for name in of_the_panel if name in trained or not trained]
    called = {name: _called(name, network, bare) for name in names}
    ax.set_title(network.strip() or LABELS.get(metric, metric))
    theirs = papers_of(table, paper, metric).drop_duplicates(["line", "round"])
    theirs = theirs[theirs.line.isin(names)]
    if not trained and theirs.empty:
        say(ax, UNTRAINED)
        return
    low = lowest = factor * theirs["min"].min()
    faint = 0.5 if table.attrs.get("narrower") else 1.0  # how much of its ink the paper's keeps
    conditions = table.attrs.get("conditions", {})
    for i, name in enumerate(names):
        if name not in shown:
            continue
        unit = weights[name] / 1000 if weights else 100
        look = look_of(i, names, ordered, paired, conditions, of_the_panel)
        label = called[name] + at_scale(table, name)
        behind = in_units(theirs[theirs.line == name].sort_values("density"), unit, factor)
        _draw_behind(ax, behind, look, faint, not ordered, None if name in trained else label)
        ours = spread_of(table[(table.line == name) & (table.metric == metric)], "round", factor)
        if ours.empty:
            continue
        points = ours.assign(x=unit * ours.density)
        _draw(ax, with_gaps(points, table), label, look, points, behind)
        learned = ours["mean"][ours["mean"] > LEARNED]
        if learned.quantile(0.25) < lowest:
            low = min(low, learned.quantile(0.1), learned.iloc[0])  # and the line's densest
    of_these = table[table.line.isin(shown)]
    if metric.startswith("early_stop_iteration"):
        ax.set_ylim(bottom=0)
        mark_the_end(ax, of_these, factor)
    elif len(theirs) and low - 0.3 > ax.get_ylim()[0]:
        ax.set_ylim(low - 0.3, ax.dataLim.y1 + 0.3)
    mark_the_diverged(ax, of_these, metric, factor, weights)
    weights_axis(ax) if weights else density_axis(ax, log)
    if paper and not weights:
        chosen = {name: called[name] for name in names if name in trained}
        mark_the_claim(ax, table, metric, paper, chosen, factor)
    if not trained:
        place = {"xycoords": "axes fraction", "ha": "center"}
        ax.annotate(UNTRAINED, (0.5, 0.02), **place, color="#666666", fontsize="small")


def _called(name: str, network: str, bare: str) -> str:
    """A line's name in a panel of its network: without the network, and without brackets around
    what is left."""
    label = name.removeprefix(network).strip() or bare
    return label.strip("()") if label.startswith("(") else label


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
    for i, r in enumerate(r for r in rounds if (rows["round"] == r).any()):
        points = spread_of(rows[rows["round"] == r], "x", factor_of(metric))
        label = f"{100 * points.density.iloc[0]:.1f} % of the weights"
        look = {"color": COLOURS[i % 8], "marker": MARKERS[i % 8]}
        _draw(ax, points, label, look, points, points[:0])


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
        points = spread_of(rows[rows.line == name], "x", factor_of(metric))
        if len(points):
            look = look_of(i, lines, False, False, conditions, lines)
            _draw(ax, points, name, look, points, points[:0])
    if len(rows):
        ax.set_title(f"On the path, {100 * rows.density.iloc[0]:.1f} % of the weights")
    ax.set(xlabel="Place between the two trainings", ylabel=LABELS[metric])


def papers_alone(table: pd.DataFrame, ax: Axes, metric: str, paper: str, **how) -> None:
    """Draw the paper's curves of the lines that we trained, in the looks that ours have."""
    names, weights, factor = list(table.attrs["lines"]), how.get("weights"), factor_of(metric)
    theirs = papers_of(table, paper, metric).drop_duplicates(["line", "round"])
    for i, name in enumerate(names):
        points = theirs[(theirs.line == name)].sort_values("density")
        if name not in set(table.line.unique()) or points.empty:
            continue
        conditions = table.attrs.get("conditions", {})
        ordered, paired = how.get("ordered", False), how.get("paired", False)
        look = look_of(i, names, ordered, paired, conditions, names)
        points = in_units(points, weights[name] / 1000 if weights else 100, factor)
        [line] = ax.plot(points.x, points["mean"], **look | {"markersize": 2.5})
        label = _called(name, "", "") + at_scale(table, name)
        keep(ax, Drawn(label, line, points[:0].assign(trained=0), points))
        _shade(ax, points, look["color"])
    weights_axis(ax) if weights else density_axis(ax, log=True)


def _draw(
    ax: Axes,
    line: pd.DataFrame,
    label: str,
    look: dict,
    points: pd.DataFrame,
    behind: pd.DataFrame,
) -> None:
    """Draw one of our lines with bars from minimum to maximum, and keep what can be read off it:
    its points, and the paper's behind it."""
    bars = {"elinewidth": 0.8, "capsize": 1.5}
    drawn = ax.errorbar(line.x, line["mean"], bars_of(line), label=label, **bars, **look)
    keep(ax, Drawn(label, drawn, points, behind))


def _draw_behind(
    ax: Axes, points: pd.DataFrame, look: dict, faint: float, shaded: bool, label: str | None
) -> None:
    """Draw the paper's curve, thin, and its minimum to maximum if that is `shaded`."""
    if points.empty:
        return
    if shaded:
        _shade(ax, points, look["color"], faint, zorder=SHADE)
    thin = BEHIND | {"alpha": BEHIND["alpha"] * faint, "linestyle": look.get("linestyle", "-")}
    ax.plot(points.x, points["mean"], color=look["color"], label=label, **thin)


def _shade(ax: Axes, points: pd.DataFrame, colour, faint: float = 1.0, **how) -> None:
    shade = {"color": colour, "alpha": 0.13 * faint, "linewidth": 0}
    ax.fill_between(points.x, points["min"], points["max"], **shade, **how)
