"""What the lines of a figure are called: beside each where there is room, else in a legend."""

from itertools import chain
from textwrap import fill

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..readings import drawn, keep_key
from . import labels
from .style import BEHIND, SHADE


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


def untrained_lines(table: pd.DataFrame) -> list[str]:
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
        if counts
    }
    alike = len(set(n.values())) == 1
    title = [f"n = {next(iter(n.values()))}"] if alike else []
    if listed:
        told = {name: f" (n = {n[name]})" if name in n and not alike else "" for name in ours}
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
