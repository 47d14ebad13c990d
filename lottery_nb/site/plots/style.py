"""How the book looks: a condition's colour, what metrics are called, panels and their axes.

A condition has its colour in the whole book: winning tickets are blue, random reinitialisations
orange, random sparse networks green.
"""

import re

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ...core import saliency

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
TICKS = (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1)  # percent
UNTRAINED = "not trained at this scale yet"
INK = "#333333"  # of what a claim measures
BEHIND = {"linewidth": 1.0, "alpha": 0.6, "zorder": 0.6, "gid": "paper"}  # the paper's mean
SHADE = 0.5  # the paper's minimum to maximum lies behind its mean
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


def look_of(
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


def density_axis(ax: Axes, log: bool) -> None:
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


def weights_axis(ax: Axes) -> None:
    ax.set_xlabel("Weights remaining (thousands)")
    ax.set_xscale("log")
    ax.set_xlim(1.2 * ax.dataLim.x1, 0.93 * ax.dataLim.x0)
    ax.xaxis.set_major_locator(
        LogLocator(subs=(1, 3)) if ax.dataLim.x1 > 10 * ax.dataLim.x0 else MaxNLocator(4)
    )
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_locator(MaxNLocator(6))


def say(ax: Axes, text: str) -> None:
    """Words in place of a picture."""
    ax.set(xticks=[], yticks=[], frame_on=False)
    ax.text(0.5, 0.5, text, ha="center", color="#666666")


def lighter(svg: bytes) -> bytes:
    """A drawing with coordinates to a hundredth of a point, and without what tells who drew it and
    how its text is set out, at half its weight."""
    drawing = re.sub(rb"<metadata>.*?</metadata>", b"", svg[svg.index(b"<svg") :], flags=re.S)
    return re.sub(
        rb' (?:d|x|y)="[^"]*"',
        lambda places: re.sub(rb"(\.\d\d)\d+", rb"\1", places[0]),
        b" ".join(drawing.split()),
    )
