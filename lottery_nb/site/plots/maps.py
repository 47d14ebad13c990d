"""Numbers as colours: the sweeps over density, and what is left of a network's inputs."""

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from ..readings import Drawn, keep
from .marks import frame_the_claim
from .points import LEARNED, edges_of, factor_of, lines_of, networks_shown, papers_of
from .style import LABELS, density_axis, panels, say

OURS, PAPERS, LESS = "ours", "the paper", "ours − the paper's"  # the sources of maps
EDGE = {"constant_values": 0.25}  # between the units of `receptive_fields`
BAR_OF = "colour bar of "  # the gid of a colour bar's axes, with the number of those it belongs to


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
    shown = networks_shown(table, networks or [""])
    lines = {network: lines_of(table, network) for network in shown}
    beside = table.attrs["scale"] != "smoke"
    compared = beside and len(shown) == 1 and not table.attrs.get("narrower")
    rows, columns = 2 * len(shown) + compared, 1 + beside
    height = 1.1 + 0.2 * max(map(len, lines.values()))
    figure, axes = panels(rows, columns, height)
    maps = [(network, metric) for network in shown for metric in (stop, accuracy)]
    for row, (network, metric) in enumerate(maps):
        places = dict(zip((OURS, PAPERS)[:columns], axes[row * columns :]))
        if compared:
            places[LESS] = axes[2 * columns + row]
        names = lines[network]
        what = LABELS[metric].replace(" at early stop", "").replace("-stop iteration", " stop")
        for source, each in _maps(table, paper, metric, names).items():
            if source not in places:
                continue
            ax = places[source]
            _draw(ax, each, names, ours=source != PAPERS)
            ax.set_title(f"{network or what}, {source}" + f": {what.lower()}" * bool(network))
            called = [name.removeprefix(network).strip() for name in names]
            ax.set_yticks([i + 0.5 for i in range(len(names))], called)
            ax.set_ylabel(of)
            if source == OURS:
                frame_the_claim(ax, table, metric, paper, names)
        for ax in places.values():
            ax.set_xlim(110, min(each.get_xlim()[1] for each in places.values()))
    return figure


class _Map(NamedTuple):
    """Numbers, a `value` for each `line` and `density`, in the units that pictures have, and which
    colours they are told in: from `low` to `high`, and at which `ends` there are numbers beyond."""

    numbers: pd.DataFrame
    colours: str
    low: float
    high: float
    ends: str


def _maps(table: pd.DataFrame, paper: str, metric: str, names: list[str]) -> dict[str, _Map]:
    """The maps of a metric for these lines: ours, the paper's, and ours less the
    paper's if it has any."""
    stops, factor = metric.startswith("early_stop_iteration"), factor_of(metric)
    runs = table[table.metric == metric].groupby(["line", "round"], as_index=False)
    ours = runs.agg(density=("density", "mean"), value=("value", "mean"))
    theirs = papers_of(table, paper, metric).drop_duplicates(["line", "round"])
    numbers = {
        source: rows.assign(value=factor * rows.value.astype(float))[rows.line.isin(names)]
        for source, rows in ((OURS, ours), (PAPERS, theirs.assign(value=theirs["mean"])))
    }
    values = {source: rows.value for source, rows in numbers.items()}
    if not table.attrs.get("narrower"):
        values = dict.fromkeys(values, pd.concat(values.values()))
    colours, ends = ("viridis_r", "max") if stops else ("viridis", "min")
    maps = {
        source: _Map(rows, colours, *_range(values[source], metric), ends)
        for source, rows in numbers.items()
    }
    if theirs.empty:
        return maps
    both = numbers[OURS].merge(numbers[PAPERS], on=["line", "round"])
    less = both.assign(density=both.density_x, value=both.value_x - both.value_y)
    far = less.value.abs().quantile(0.7)
    maps[LESS] = _Map(less, "RdBu_r" if stops else "RdBu", -far, far, "both")
    return maps


def _range(values: pd.Series, metric: str) -> tuple[float, float]:
    """From the best to where the worst tenth begins, ascending; networks that learn nothing do not
    count."""
    if metric.startswith("early_stop_iteration"):
        return values.min(), values.quantile(0.9)
    learned = values[values > LEARNED]
    return (learned.quantile(0.1), learned.max()) if len(learned) else (0, LEARNED)


def _draw(ax: Axes, picture: _Map, names: list[str], ours: bool) -> None:
    """A row of cells for each line, as wide as the densities lie apart; ours: or the paper's."""
    cmap, norm = plt.get_cmap(picture.colours), Normalize(picture.low, picture.high)
    numbers = picture.numbers.dropna(subset="density")
    for i, name in enumerate(names):
        mine = numbers[numbers.line == name].sort_values("density")
        if len(mine) < 2:
            ax.text(0.02, i + 0.5, "not trained yet", transform=ax.get_yaxis_transform(),
                    va="center", fontsize=7, color="#666666")  # fmt: skip
            continue
        edges, values = edges_of(mine.density.to_numpy(float)), mine.value.to_numpy(float)
        cells = ax.pcolormesh(100 * edges, [i, i + 1], values[None], cmap=cmap, norm=norm)
        told = mine.assign(x=100 * mine.density, mean=mine.value, trained=1)
        keep(ax, Drawn(name, cells, *((told, told[:0]) if ours else (told[:0], told))))
    ax.set_ylim(len(names), 0)
    ax.grid(False)
    density_axis(ax, log=True)
    number = ax.figure.axes.index(ax)
    bar = ax.figure.colorbar(ScalarMappable(norm, cmap), ax=ax, extend=picture.ends)
    bar.ax.set_gid(f"{BAR_OF}{number}")


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


def receptive_fields(rows: pd.DataFrame, ax: Axes, side: int = 28) -> None:
    """Draw which pixels are left of the units with the most of them, six units in a row.

    rows: of a trial's "inputs of units"; side: of the images.
    """
    if rows.empty:
        say(ax, "not at this scale")
        return
    units = np.zeros((-(-int(rows.x.max() + 1) // side**2 // 6) * 6, side**2))
    units.flat[rows.x.astype(int)] = 1
    tiles = np.pad(units.reshape(-1, 6, side, side), ((0, 0), (0, 0), (1, 0), (1, 0)), **EDGE)
    ax.imshow(np.block([list(row) for row in tiles]), cmap="Blues", interpolation="none")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
