"""The pictures of prose pages: what the hypothesis says, the first page's figure and its slider,
how to read a panel, and how long the paper's scale takes."""

from contextlib import redirect_stdout
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ..analysis import tables
from . import pictures, plots, progress, widgets
from .notebooks import Notebook
from .pages import PAGES
from .plots.labels import MARK
from .plots.points import factor_of
from .plots.style import COLOURS, MARKERS, STYLE
from .readings import drawn

FEW_ROUNDS = (0, 1, 3, 5, 7, 10, 13, 16, 20)  # of the first page's slider


def draw(first: Notebook, figure: Notebook, scale: str, slider: Path) -> None:
    """Write all of them beside the pages, and the slider to its file; first: Figure 1; figure:
    Figure 4."""
    how_long = _workers(progress.simulated()["hours"])
    how_long.savefig(PAGES / "workers.svg", metadata={"Date": None})
    _hypothesis()
    _how_to_read(first, scale)
    _first_picture(figure, scale, slider)


def _first_picture(figure: Notebook, scale: str, beside: Path) -> None:
    """The intro's picture, two panels of Figure 4's iterative lines, and its slider."""
    lines = {label: line for label, line in figure.plan.items() if line.strategy == "iterative"}
    with redirect_stdout(None):
        table = tables.run(lines, scale=scale, figure=figure.name)
    picture, axes = plots.panels(1, 2)
    plots.early_stop_vs_density(table, axes[0], paper=figure.name)
    plots.accuracy_vs_density(table, axes[1], paper=figure.name)
    plots.legend(picture, axes)
    pictures.lay_out(picture)
    pictures.panels_of(picture, "first")
    slider = widgets.rounds_of_lenet(scale, FEW_ROUNDS)
    beside.write_text(slider._repr_html_() if slider else "")


def _how_to_read(figure: Notebook, scale: str) -> None:
    """A panel of Figure 1, Lenet's early stops, with numbers at what the page of reading tells."""
    lines = {label: line for label, line in figure.plan.items() if label.startswith("Lenet")}
    with redirect_stdout(None):
        table = tables.run(lines, scale=scale, figure=figure.name)
    picture, [ax] = plots.panels(1, 1)
    picture.set_size_inches(5.6, 3.4)
    plots.early_stop_vs_density(table, ax, paper=figure.name, network="Lenet")
    plots.legend(picture, [ax])
    ax.set_title("Lenet: early-stop iteration (thousands)")
    line = drawn(ax)[-1]  # of random networks, where they are there
    # Each place, and where its number stands beside it.
    places = {1: (_at(line.points, 10.7), (12, -18))}
    if len(line.papers):
        places[2] = _at(line.papers, 4.4), (-15, 12)
    marks = [line for line in ax.lines if line.get_gid() == MARK]
    if marks:
        x, (low, high) = marks[0].get_xdata()[0], sorted(marks[0].get_ydata())
        places[3] = (x, (low + high) / 2), (15, -16)
        ends = factor_of("early_stop_iteration") * table.iteration.max()
        places[4] = (0.33, ends), (0, -18)
    for number, (place, beside) in places.items():
        ax.annotate(
            str(number), place, beside, textcoords="offset points", ha="center", va="center",
            color="white", fontweight="bold", zorder=9, annotation_clip=False,
            bbox={"boxstyle": "circle", "facecolor": "#333333", "edgecolor": "none"},
            arrowprops={"arrowstyle": "-", "color": "#333333"},
        )  # fmt: skip
    picture.savefig(PAGES / "reading.svg", metadata={"Date": None})


def _at(points: pd.DataFrame, x: float) -> tuple[float, float]:
    """The point of a line that is nearest to `x`."""
    nearest = points.iloc[int((points.x - x).abs().argmin())]
    return nearest.x, nearest["mean"]


def _hypothesis() -> None:
    """The intro's five pictures of what the hypothesis says: a drawing, nothing is trained for
    it."""
    draw = np.random.default_rng(4)
    shapes = ((5, 4), (5, 5), (3, 5))
    initial, moves, fresh = (
        [draw.uniform(0.1, 0.8, shape) * draw.choice((-1, 1), shape) for shape in shapes]
        for _ in range(3)
    )
    trained = [0.6 * weights + 0.5 * move for weights, move in zip(initial, moves)]
    masks = [abs(weights) >= np.quantile(abs(weights), 0.6) for weights in trained]
    drawings = {
        "drawn": initial,
        "trained": trained,
        "pruned": [weights * mask for weights, mask in zip(trained, masks)],
        "reset": [weights * mask for weights, mask in zip(initial, masks)],
        "reinitialised": [weights * mask for weights, mask in zip(fresh, masks)],
    }
    for name, weights in drawings.items():
        picture = _network(weights)
        picture.savefig(PAGES / f"hypothesis-{name}.svg", metadata={"Date": None})
        plt.close(picture)


def _network(weights: list[np.ndarray]) -> Figure:
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


def _workers(hours: dict[str, dict]) -> Figure:
    """How long the paper's scale takes over the number of workers; hours: of each line, as
    `simulation.hours` returns them."""
    figure, [ax] = plots.panels(1, 1, height=3.4)
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
