"""Whole figures, panels and their legend, that several notebooks draw."""

import pandas as pd
from matplotlib.figure import Figure

from .histograms import distribution
from .learning import against_dense, curves
from .legends import legend, untrained_lines
from .lines import accuracy_vs_density, early_stop_vs_density, metric_vs_density, papers_alone
from .maps import connection_map
from .marks import mark_the_claim
from .points import factor_of, is_of, networks_shown
from .style import LABELS, panels

MOMENTS = {
    "checkpoint_1": "checkpoint 1",
    "checkpoint_2": "checkpoint 2",
    "end": "at the end",
}


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
        papers_alone(table, below, metric, **how)
        left, right = zip(ax.get_xlim(), below.get_xlim())  # large networks are at the left
        low, high = zip(ax.get_ylim(), below.get_ylim())
        for each, name in ((ax, "Ours"), (below, "The paper")):
            title = LABELS[metric]
            each.set_title(f"{name}: {title[0].lower()}{title[1:]}")
            each.set(xlim=(max(left), min(right)), ylim=(min(low), max(high)))
    legend(figure, axes, columns=columns, untrained=untrained_lines(table))
    return figure


def by_network(table: pd.DataFrame, metrics: list[str], networks: list[str], **how) -> Figure:
    """Panels of several metrics over density for each network, two in a row, with a legend.

    With several metrics a network begins a row. Networks of which nothing is trained are named in
    the legend, unless nothing is trained at all.

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
    shown = networks_shown(table, networks)
    odd = len(metrics) > 1 and len(metrics) % 2 == 1
    wanted = [(n, metric) for n in shown for metric in [*metrics, *[None] * odd]]
    figure, axes = panels((len(wanted) + 1) // 2, 2)
    drawn = []
    for ax, (network, metric) in zip(axes, wanted):
        if metric is None:
            ax.set_axis_off()
            continue
        drawn.append(ax)
        metric_vs_density(table, ax, metric, network=network, **how)
        if len(metrics) == 1:
            ax.set(title=network, ylabel=LABELS[metric])
        else:
            ax.set_title(f"{network}: {LABELS[metric][0].lower()}{LABELS[metric][1:]}")
    lacking = [network for network in networks if network not in shown]
    named = [line for line in untrained_lines(table) if any(is_of(line, n) for n in shown)]
    at = None if axes[-1] in drawn else axes[-1]
    legend(figure, drawn, at=at, untrained=lacking + named)
    return figure


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
            mark_the_claim(ax, table, metric, how["paper"], lines, factor_of(metric))
            papers_alone(table, axes[2 * i + 1], metric, **how)
            axes[2 * i + 1].set_title(f"The paper: {LABELS[accuracy].lower()}, {MOMENTS[moment]}")
    shown = axes if apart else ours
    legend(figure, shown, at=None if apart else axes[3], untrained=untrained_lines(table))
    return figure


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
