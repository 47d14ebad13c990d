"""The paper's own plotted points, all 45 figures: means, minima and maxima read off the vector
graphics of arXiv v5.

Accuracies are good to about 0.00002, early-stop iterations read 0 to 3 high. The points of the
one-shot lines of Figures 4 and 12 are placed by their order on the grid of densities, which is the
same in all panels.
"""

from functools import cache

import pandas as pd

from ..core.errors import LotteryError
from ..runs.store import ROOT

FILE = ROOT / "book" / "paper_curves.csv"


@cache
def _points() -> pd.DataFrame:
    return pd.read_csv(FILE, dtype={"title": str, "line": str, "round": "Int64"})


def plots(figure: str) -> bool:
    """Whether the paper draws curves in a figure: not in its tables, and not in figures that we
    add."""
    return figure.removeprefix("fig").isdigit() and bool(
        (_points().figure == int(figure.removeprefix("fig"))).any()
    )


def curves(figure: str, panel: int | None = None) -> pd.DataFrame:
    """The points that the paper plots in a figure.

    Parameters
    ----------
    figure : str
        Such as "fig04".
    panel : int, optional
        Only this one, counted row by row from 1.

    Returns
    -------
    pandas.DataFrame
        One row a point: `panel` (row by row, from 1), `title`, `metric`, `line`, `x` (as drawn),
        `round`, `density`, `mean`, `min`, `max`. Metrics have the names of our own tables.

    Raises
    ------
    LotteryError
        For a figure or a panel without points.
    """
    if not figure.removeprefix("fig").isdigit():
        raise LotteryError(f"{figure!r} is no figure: name one such as fig04")
    points = _points()
    points = points[points.figure == int(figure.removeprefix("fig"))]
    if panel is not None:
        points = points[points.panel == panel]
    if points.empty:
        raise LotteryError(
            f"the paper plots no curves in {figure}{f', panel {panel}' if panel else ''}"
        )
    return points
