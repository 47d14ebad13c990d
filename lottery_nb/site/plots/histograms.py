"""How a quantity is distributed over a layer's weights or units."""

from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes

from ..readings import Drawn, keep
from .points import at_scale, papers_of
from .style import BEHIND, COLOURS, LABELS, say


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
        say(ax, f"round {r}: not at this scale")
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
        theirs = papers_of(table, paper, metric)
        theirs = theirs[(theirs.line == name) & (theirs["round"] == r)]
        if len(theirs):
            ax.plot(theirs.x, theirs["mean"], color=colour, **BEHIND)
        label = name.split(", ")[-1] + at_scale(table, name)
        [line] = ax.step(ours.x, ours["mean"], where="mid", color=colour, label=label)
        keep(ax, Drawn(label, line, ours.assign(trained=mine.node.nunique()), theirs))
        band = {"step": "mid", "color": colour, "alpha": 0.15, "linewidth": 0}
        ax.fill_between(ours.x, ours["min"], ours["max"], **band)
        heights += [*ours["mean"]]
    ax.set(xlabel=LABELS[metric.split()[0]], ylabel="Probability density")
    ax.set_ylim(bottom=0)
    *_, second, highest = sorted(heights)
    if highest > 2 * second:  # a spike, which would flatten all else
        ax.set_ylim(top=1.6 * second)
        corner = {"xycoords": "axes fraction", "ha": "right", "va": "top"}
        ax.annotate(f"up to {highest:.0f}", (1, 1), **corner, fontsize=7, color="#666666")
    ax.set_title(title or f"{100 * rows.density.iloc[0]:.1f} % of the weights remain")
