"""Learning curves: a metric over the iterations of a training."""

from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..readings import Drawn, keep
from .points import at_scale, factor_of, papers_of, spread_of
from .style import BEHIND, COLOURS, DASHED, DASHES, LABELS


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
    factor = factor_of(metric)
    rounds = list(dict.fromkeys(table["round"]))
    table = table[table.metric == metric]
    theirs = papers_of(table, paper, metric).drop_duplicates(["line", "round", "x"])
    bends = []
    for line, r in shown:
        rows = table[(table.line == line) & (table["round"] == r)]
        if rows.empty:
            continue  # this scale has fewer rounds
        reinit = line == "random reinit"
        label = f"{100 * rows.density.iloc[0]:.1f} %{' reinit' * reinit}{at_scale(table, line)}"
        look = {
            "color": COLOURS[rounds.index(r) % len(COLOURS)],
            "linestyle": DASHED if reinit else "-",
        }
        ours = spread_of(rows, "iteration", factor)
        _curve(ax, ours, _papers(theirs, line, r, ours, factor), label, look)
        bends.append(ours["mean"].iloc[len(ours) // 8])
    if bends:  # the fall from the untrained network's value is left out
        loss = metric.endswith("loss")
        ax.set_ylim(*((0.5 * min(bends), 1.3 * max(bends)) if loss else (min(bends), None)))
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
    factor = factor_of(metric)
    table = table[table.line.isin(lines) & (table.metric == metric)]
    theirs = theirs[theirs.metric == metric].drop_duplicates(["line", "round", "x"])
    styles = [(ticket, 0, "dense network", ("#555555", "-"))]
    styles += [
        (line, r, table.control[table.line == line].iloc[0], look)
        for line, look in zip(lines, cycle(zip(COLOURS, DASHES)))
        if r
    ]
    for line, round_, label, look in styles:
        rows = table[(table.line == line) & (table["round"] == round_)]
        ours = spread_of(rows, "iteration", factor)
        behind = _papers(theirs, line, round_, ours, factor)
        _curve(ax, ours, behind, label, dict(zip(("color", "linestyle"), look)))
    late = factor * table.value[table.iteration > table.iteration.max() / 8]
    margin = 0.05 * (late.max() - late.min())
    ax.set_ylim(late.min() - margin, late.max() + margin)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set(xlabel="Iteration (thousands)", ylabel=LABELS[metric])


def _papers(
    theirs: pd.DataFrame, line: str, r: int, ours: pd.DataFrame, factor: float
) -> pd.DataFrame:
    """The paper's points of a line's learning curve at round `r`, as they are drawn, up to our last
    iteration."""
    last = ours.iteration.max()
    chosen = (theirs.line == line) & (theirs["round"] == r) & (theirs.x <= last)
    points = theirs[chosen].sort_values("x")
    return points.assign(x=points.x / 1000, mean=factor * points["mean"])


def _curve(
    ax: Axes, ours: pd.DataFrame, behind: pd.DataFrame, label: str, look: dict[str, Any]
) -> None:
    """Draw one of our learning curves: the mean and, of several trainings, a band from minimum to
    maximum; ours: of `spread_of` by iteration; behind: the paper's, as it is drawn; look: colour
    and dash."""
    if len(behind):
        ax.plot(behind.x, behind["mean"], **look, **BEHIND)
    if ours.empty:
        return
    ours = ours.assign(x=ours.iteration / 1000)
    [line] = ax.plot(ours.x, ours["mean"], label=label, **look)
    if ours.trained.max() > 1:
        band = {"color": look["color"], "alpha": 0.15, "linewidth": 0}
        ax.fill_between(ours.x, ours["min"], ours["max"], **band)
    keep(ax, Drawn(label, line, ours, behind))
